package catalog_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
)

// Whatever a node says of itself: if that makes a view, all that its catalog names is there.
func FuzzNode(f *testing.F) {
	f.Add(`{"BIND":"127.0.0.1","OUTBOUND_PORT":15001,"INBOUND":[{"SERVICE":"catalog.shop","PORT_NAME":"http","SERVICE_PORT":80,"PROTOCOL":"http","ENDPOINT_PORT":8080,"APP":"localhost:3000"}]}`)
	f.Add(`{"BIND":"::1","GATEWAY_PORT":15443,"TCP_OUTBOUND":true}`)
	snapshot := new(mesh.Store).Update(mesh.Delta{Upserts: []mesh.Object{
		&mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: "db"}, Cluster: "a", Ports: []mesh.ServicePort{{Name: "db", Port: 5432, Protocol: mesh.TCP}}},
	}})
	f.Fuzz(func(t *testing.T, text string) {
		metadata := &structpb.Struct{}
		if protojson.Unmarshal([]byte(text), metadata) != nil {
			return
		}
		for _, role := range []translate.Role{translate.Sidecar, translate.Gateway} {
			v, err := translate.ViewOf(role, "a", "shop", &corev3.Node{Metadata: metadata})
			if err != nil {
				continue
			}
			c := catalog.Of(v)
			for _, kind := range types {
				for name := range c.Names(snapshot, kind) {
					if _, ok := c.Get(snapshot, kind, name); !ok {
						t.Fatalf("%s %q is named but not there", kind, name)
					}
				}
			}
		}
	})
}
