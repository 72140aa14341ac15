package ingest

import (
	"context"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/latency"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// owned yields the objects that the cluster's agent reported.
func owned(s *mesh.Snapshot, c *mesh.Cluster) iter.Seq[mesh.Object] {
	return func(yield func(mesh.Object) bool) {
		for _, kind := range []mesh.Kind{mesh.KindService, mesh.KindEndpoints, mesh.KindGateway} {
			for key, object := range s.Scan(string(kind) + "/") {
				if id, ok := key.Cluster(); ok && id == c.ID && !yield(object) {
					return
				}
			}
		}
		if object, ok := s.Get(mesh.FederationKey(c.TrustDomain.Name())); ok {
			yield(object)
		}
	}
}

// usage counts a cluster's objects against its quotas.
type usage struct {
	objects   map[mesh.Key]weight
	kinds     map[mesh.Kind]int
	endpoints int
	bytes     int
}

// weight is what one object adds.
type weight struct{ endpoints, bytes int }

func newUsage() usage {
	return usage{objects: make(map[mesh.Key]weight), kinds: make(map[mesh.Kind]int)}
}

// set counts an object of so many bytes, in place of what was at its key.
func (u *usage) set(object mesh.Object, bytes int) {
	key := object.Key()
	u.remove(key)
	w := weight{bytes: bytes}
	if slice, ok := object.(*mesh.EndpointSlice); ok {
		w.endpoints = len(slice.Endpoints)
	}
	u.objects[key] = w
	u.kinds[key.Kind()]++
	u.endpoints, u.bytes = u.endpoints+w.endpoints, u.bytes+w.bytes
}

func (u *usage) remove(key mesh.Key) {
	w, known := u.objects[key]
	if !known {
		return
	}
	delete(u.objects, key)
	u.kinds[key.Kind()]--
	u.endpoints, u.bytes = u.endpoints-w.endpoints, u.bytes-w.bytes
}

// maxPorts of a service and of an endpoint; Kubernetes allows a slice as many.
const maxPorts = 100

// exceeded says which quota the object would break. What only shrinks breaks none.
func (u *usage) exceeded(object mesh.Object, bytes int, c Config) *Rejected {
	key := object.Key()
	was, known := u.objects[key]
	ports, endpoints := 0, 0
	switch o := object.(type) {
	case *mesh.Service:
		ports = len(o.Ports)
	case *mesh.EndpointSlice:
		endpoints = len(o.Endpoints)
		for i := range o.Endpoints {
			ports = max(ports, len(o.Endpoints[i].Ports))
		}
	}
	most, limited := map[mesh.Kind]int{
		mesh.KindService: c.MaxServices, mesh.KindEndpoints: 2 * c.MaxServices, mesh.KindGateway: c.MaxGateways,
	}[key.Kind()]
	switch after := u.endpoints + endpoints - was.endpoints; {
	case ports > maxPorts:
		return reject(Quota, "%d ports, at most %d", ports, maxPorts)
	case limited && !known && u.kinds[key.Kind()] >= most:
		return reject(Quota, "the cluster has %d objects of kind %s, at most %d", u.kinds[key.Kind()], key.Kind(), most)
	case after > c.MaxEndpoints && endpoints > was.endpoints:
		return reject(Quota, "the cluster would have %d endpoints, at most %d", after, c.MaxEndpoints)
	case u.bytes+bytes-was.bytes > c.MaxBytes && bytes > was.bytes:
		return reject(Quota, "the cluster's objects would take %d bytes, at most %d", u.bytes+bytes-was.bytes, c.MaxBytes)
	}
	return nil
}

// bucket is a token bucket that makes a session wait.
type bucket struct {
	spent float64
	at    time.Time
}

func (b *bucket) take(ctx context.Context, n float64, c Config, now time.Time) error {
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*c.ObjectsPerSecond)
	}
	b.at = now
	b.spent += n
	if b.spent <= c.Burst {
		return nil
	}
	wait := time.NewTimer(time.Duration((b.spent - c.Burst) / c.ObjectsPerSecond * float64(time.Second)))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return status.FromContextError(context.Cause(ctx)).Err()
	}
}

// Limits of a load report, which every replica keeps. The bytes leave room for it in one message between replicas.
const (
	maxLoadRows  = 20_000
	maxProxies   = 20_000
	maxBundles   = 10_000
	maxLoadBytes = 3 << 20
)

// excess says which limit a report breaks; "": none.
func excess(report *pb.LoadReport) string {
	for _, limit := range []struct {
		what    string
		n, most int
	}{
		{"rows", len(report.GetRows()), maxLoadRows}, {"proxies", len(report.GetProxies()), maxProxies},
		{"bundles", len(report.GetFederation().GetBundles()), maxBundles}, {"bytes", proto.Size(report), maxLoadBytes},
	} {
		if limit.n > limit.most {
			return fmt.Sprintf("%d %s, at most %d", limit.n, limit.what, limit.most)
		}
	}
	return ""
}

// load stamps the report with what is known of its sender, and keeps it. One that is too large is dropped and counted:
// that endpoints are current matters more.
func (s *session) load(report *pb.LoadReport) error {
	if why := excess(report); why != "" {
		if s.ingest.metrics.dropped.Inc(); !s.dropping {
			s.log("load reports are dropped", "err", why)
		}
		s.dropping = true
		return nil
	}
	s.dropping = false
	_, cluster, err := s.registration()
	if err != nil {
		return err
	}
	report.Cluster, report.Region = string(cluster.ID), cluster.Region
	for _, row := range report.GetRows() {
		row.SourceRegion = cluster.Region
		row.LatencyCounts = row.GetLatencyCounts()[:min(len(row.GetLatencyCounts()), latency.Buckets)]
	}
	s.ingest.config.Board.Load(s.cluster, report, time.Now())
	return nil
}
