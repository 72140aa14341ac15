package oracle

import (
	"context"
	"iter"
	"maps"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// resources by type and name. Immutable once they are served.
type resources map[xds.Type]map[string]xds.Resource

func (r resources) add(t xds.Type, name string, body proto.Message) {
	if r[t] == nil {
		r[t] = map[string]xds.Resource{}
	}
	r[t][name] = xds.NewResource(t, name, body)
}

// world is what the plane serves to both: everything, but for the listeners of each side.
type world struct {
	common    resources
	listeners map[string]map[string]xds.Resource // by node ID
}

type catalog string // node ID

func (c catalog) of(w world, t xds.Type) map[string]xds.Resource {
	if t == xds.Listener {
		return w.listeners[string(c)]
	}
	return w.common[t]
}

func (c catalog) Get(w world, t xds.Type, name string) (xds.Resource, bool) {
	r, ok := c.of(w, t)[name]
	return r, ok
}

func (c catalog) Names(w world, t xds.Type) iter.Seq[string] { return maps.Keys(c.of(w, t)) }

func (c catalog) Changed(old, now world) iter.Seq2[xds.Type, string] {
	return func(yield func(xds.Type, string) bool) {
		for _, t := range []xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route} {
			for _, w := range []world{old, now} {
				for name := range c.of(w, t) {
					if c.of(old, t)[name].Version != c.of(now, t)[name].Version && !yield(t, name) {
						return
					}
				}
			}
		}
	}
}

// plane serves a world twice: over mutual TLS, as an agent does, and in clear text.
type plane struct {
	world        watch.Value[world]
	server       *adsserver.Server[world]
	ca           *trusttest.CA
	secure, open string // addresses
}

func (p *plane) Latest() (world, <-chan struct{}) { return p.world.Get() }

func (p *plane) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func startPlane(t *testing.T, w world) *plane {
	t.Helper()
	p := &plane{ca: trusttest.NewCA("oracle.mesh")}
	p.world.Set(w)
	p.server = adsserver.New(adsserver.Config[world]{State: p,
		Authorize: func(_ context.Context, _ adsserver.Peer, node *corev3.Node) (xds.Catalog[world], error) {
			return catalog(node.GetId()), nil
		}})
	identity := trust.ServerConfig(p.ca.Source("/periplus/agent", time.Hour), trust.AuthorizeAny)
	p.secure = p.serve(t, grpc.Creds(credentials.NewTLS(identity)))
	p.open = p.serve(t)
	return p
}

func (p *plane) serve(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	listener := listen(t, plane45)
	server := grpc.NewServer(append(ads.ServerOptions(), options...)...)
	p.server.Register(server)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// plane45 is the address of the plane.
const plane45 = "127.45.0.3:0"

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// refused are the resources that a client did not take, by node.
func (p *plane) refused() map[string]string {
	out := map[string]string{}
	for _, stream := range p.server.Streams() {
		for _, s := range stream.Types {
			if s.Detail != "" {
				out[stream.NodeID] += string(s.Type) + ": " + s.Detail + "\n"
			}
		}
	}
	return out
}
