package ingest

import (
	"context"
	"iter"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	slices    map[mesh.Key]int // endpoints of each slice
	services  map[mesh.Key]struct{}
	endpoints int
}

func newUsage() usage {
	return usage{slices: make(map[mesh.Key]int), services: make(map[mesh.Key]struct{})}
}

func (u *usage) set(object mesh.Object) {
	switch o := object.(type) {
	case *mesh.Service:
		u.services[o.Key()] = struct{}{}
	case *mesh.EndpointSlice:
		u.endpoints += len(o.Endpoints) - u.slices[o.Key()]
		u.slices[o.Key()] = len(o.Endpoints)
	}
}

func (u *usage) remove(key mesh.Key) {
	delete(u.services, key)
	u.endpoints -= u.slices[key]
	delete(u.slices, key)
}

// exceeded says which quota the object would break. Slices count like services, gateways are few by nature.
func (u *usage) exceeded(object mesh.Object, c Config) *Rejected {
	switch o := object.(type) {
	case *mesh.Service:
		if _, known := u.services[o.Key()]; !known && len(u.services) >= c.MaxServices {
			return reject(Quota, "the cluster has %d services, at most %d", len(u.services), c.MaxServices)
		}
	case *mesh.EndpointSlice:
		after := u.endpoints + len(o.Endpoints) - u.slices[o.Key()]
		if after > c.MaxEndpoints && len(o.Endpoints) > u.slices[o.Key()] {
			return reject(Quota, "the cluster would have %d endpoints, at most %d", after, c.MaxEndpoints)
		}
		if _, known := u.slices[o.Key()]; !known && len(u.slices) >= c.MaxServices*2 {
			return reject(Quota, "the cluster has %d endpoint slices, at most %d", len(u.slices), c.MaxServices*2)
		}
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

// Limits of a load report.
const (
	maxLoadRows = 20_000
	maxProxies  = 20_000
	maxBundles  = 10_000
)

// load stamps the report with what is known of its sender, and keeps it.
func (s *session) load(report *pb.LoadReport) error {
	if len(report.GetRows()) > maxLoadRows || len(report.GetProxies()) > maxProxies {
		return status.Errorf(codes.InvalidArgument, "load report of %d rows and %d proxies, at most %d and %d", len(report.GetRows()), len(report.GetProxies()), maxLoadRows, maxProxies)
	}
	if n := len(report.GetFederation().GetBundles()); n > maxBundles {
		return status.Errorf(codes.InvalidArgument, "load report of %d bundles, at most %d", n, maxBundles)
	}
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
