package main

import (
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// floor is what cannot be done without: it marshals each resource once and hands the same bytes to every grpc-go stream.
// It knows no versions, no order, no answers, no pace and no refusals, so that a server that does costs at least this.
type floor struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	store *mesh.Store

	mu      sync.Mutex // guards below
	streams map[grpc.ServerStream]*catalog.Catalog
	shared  map[translate.View]*catalog.Catalog
}

func newFloor(store *mesh.Store) *floor {
	return &floor{store: store, streams: make(map[grpc.ServerStream]*catalog.Catalog), shared: make(map[translate.View]*catalog.Catalog)}
}

// DeltaAggregatedResources answers the first request of a type with all that there is.
func (f *floor) DeltaAggregatedResources(stream grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]) error {
	seen := make(map[string]bool)
	var own *catalog.Catalog
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.streams, stream)
	}()
	for {
		request, err := stream.Recv()
		if err != nil {
			return err
		}
		if own == nil {
			view, err := translate.ViewOf(translate.Sidecar, clusterID, "shop", request.GetNode())
			if err != nil {
				return err
			}
			own = f.catalog(view)
			if err := stream.SendHeader(nil); err != nil {
				return err
			}
		}
		if seen[request.GetTypeUrl()] {
			continue
		}
		seen[request.GetTypeUrl()] = true
		if err := f.all(stream, own, xds.Type(request.GetTypeUrl())); err != nil {
			return err
		}
	}
}

func (f *floor) catalog(v translate.View) *catalog.Catalog {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shared[v] == nil {
		f.shared[v] = catalog.Of(v)
	}
	return f.shared[v]
}

// all sends everything of a type; a stream that has all endpoints is sent the changes.
func (f *floor) all(stream grpc.ServerStream, c *catalog.Catalog, t xds.Type) error {
	snapshot, _ := f.store.Latest()
	response := xds.Response{Type: t, Nonce: "1"}
	for name := range c.Names(snapshot, t) {
		resource, _ := c.Get(snapshot, t, name)
		response.Resources = append(response.Resources, resource)
	}
	if err := stream.SendMsg(ads.FrameDelta(response)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if t == xds.Endpoints {
		f.streams[stream] = c
	}
	return nil
}

// follow sends what changed, one state after the other; those that came meanwhile are one step.
func (f *floor) follow() {
	old, next := f.store.Latest()
	for {
		<-next
		now, again := f.store.Latest()
		f.changed(old, now)
		old, next = now, again
	}
}

func (f *floor) changed(old, now *mesh.Snapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	messages := make(map[*catalog.Catalog]*ads.Message)
	for stream, c := range f.streams {
		if messages[c] == nil {
			response := xds.Response{Type: xds.Endpoints, Nonce: "1"}
			for t, name := range c.Changed(old, now) {
				if resource, ok := c.Get(now, t, name); ok && t == xds.Endpoints {
					response.Resources = append(response.Resources, resource)
				}
			}
			messages[c] = ads.FrameDelta(response)
		}
		_ = stream.SendMsg(messages[c]) // who is gone is removed by its own goroutine
	}
}
