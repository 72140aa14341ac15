package etcd

import (
	"context"
	"slices"
	"time"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"golang.org/x/sync/errgroup"
)

// mirrorPause is how long the announcements' changes are gathered.
const mirrorPause = 100 * time.Millisecond

// mirror writes what the sidecars announce to this agent. When the agent ends, that stays until its lease ends: the
// agent went away, not the sidecars.
func (s *Source) mirror(ctx context.Context, sink clusteragent.Sink, holder *Holder) error {
	holder.OnLease = s.metrics.leases.Inc
	holder.OnWrite = func(n int) { s.metrics.announced.Set(float64(n)) }
	announced := sink.Announced()
	snapshot, changed := announced.Latest()
	records := sidecarRecords{}
	want := watch.New(records.of(snapshot))
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return holder.Run(ctx, want) })
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(mirrorPause):
			}
			snapshot, changed = announced.Latest()
			want.Set(records.of(snapshot))
		}
	})
	return group.Wait()
}

// sidecarRecords are those that were made last, with what they were made of.
type sidecarRecords map[string]sidecarRecord

type sidecarRecord struct {
	slice   *mesh.EndpointSlice
	service *mesh.Service
	value   []byte
}

// of makes the records of every announced workload; those of unchanged ones are not made again.
func (r *sidecarRecords) of(s *mesh.Snapshot) Records {
	next, out := sidecarRecords{}, Records{}
	for _, object := range s.All() {
		slice, ok := object.(*mesh.EndpointSlice)
		if !ok || len(slice.Endpoints) != 1 {
			continue
		}
		path := Name{Folder: Sidecars, Service: slice.Service, Workload: slice.Slice}.Path()
		object, _ := s.Get(mesh.ServiceKey(slice.Service, slice.Cluster))
		service, _ := object.(*mesh.Service)
		made := (*r)[path]
		if made.slice != slice || made.service != service {
			made = sidecarRecord{slice, service, sidecarValue(slice, service)}
		}
		if made.value != nil {
			next[path], out[path] = made, made.value
		}
	}
	*r = next
	return out
}

// sidecarValue has of the service the ports that the workload serves.
func sidecarValue(slice *mesh.EndpointSlice, service *mesh.Service) []byte {
	record := Record{Slice: slice}
	if service != nil {
		said := *service
		said.Ports = slices.DeleteFunc(slices.Clone(service.Ports), func(p mesh.ServicePort) bool {
			_, serves := slice.Endpoints[0].Ports[p.Name]
			return !serves
		})
		if len(said.Ports) > 0 {
			record.Service = &said
		}
	}
	value, err := record.Format()
	if err != nil {
		panic("etcd: a slice and a service have documents: " + err.Error())
	}
	return value
}
