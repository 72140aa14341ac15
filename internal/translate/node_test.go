package translate

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

const goodMetadata = `{"NETWORK":"n1","BIND":"127.0.0.2","OUTBOUND_PORT":15001,"LABELS":{"app":"catalog"},"ISTIO_VERSION":"1.29",
"INBOUND":[{"SERVICE":"catalog.shop","PORT_NAME":"http","SERVICE_PORT":80,"PROTOCOL":"http","ENDPOINT_PORT":8080,"APP":"localhost:9000"}]}`

func node(t testing.TB, metadata string) *corev3.Node {
	fields := new(structpb.Struct)
	if err := protojson.Unmarshal([]byte(metadata), fields); err != nil {
		t.Skip(err)
	}
	return &corev3.Node{Locality: &corev3.Locality{Region: "eu", Zone: "1"}, Metadata: fields}
}

func TestViewOf(t *testing.T) {
	v, err := ViewOf(Sidecar, "a", "shop", node(t, goodMetadata))
	if err != nil {
		t.Fatal(err)
	}
	w := v.Declared()
	if v.Network != "n1" || v.Locality != (mesh.Locality{Region: "eu", Zone: "1"}) || w.OutboundPort != 15001 || len(w.Inbound) != 1 {
		t.Fatalf("%+v", v)
	}
	if host, port := w.Inbound[0].Address(); host != "127.0.0.1" || port != 9000 {
		t.Fatalf("%s %d", host, port)
	}
	if v, err := ViewOf(Gateway, "a", "", nil); err != nil || v.Network != "" {
		t.Fatalf("no node: %+v %v", v, err)
	}
}

func TestViewOfRefuses(t *testing.T) {
	inbound := func(change ...string) string { return strings.NewReplacer(change...).Replace(goodMetadata) }
	for want, metadata := range map[string]string{
		"NETWORK":         `{"NETWORK":"N 1"}`,
		"BIND: missing":   `{"OUTBOUND_PORT":1}`,
		"not an IP":       `{"BIND":"example.com"}`,
		"SERVICE":         inbound("catalog.shop", "catalog"),
		"PROTOCOL":        inbound(`"http"`, `"smtp"`),
		"ENDPOINT_PORT":   inbound("8080", "0"),
		"port 15001 is":   inbound("8080", "15001"),
		"APP":             inbound("localhost:9000", "example.com:80"),
		"cannot unmarsha": `{"BIND":1}`,
		"bytes, at most":  `{"X":"` + strings.Repeat("x", maxMetadataBytes) + `"}`,
	} {
		if _, err := ViewOf(Sidecar, "a", "shop", node(t, metadata)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	bad := &corev3.Node{Locality: &corev3.Locality{Zone: "1"}}
	if _, err := ViewOf(Sidecar, "a", "shop", bad); err == nil {
		t.Error("a zone without a region")
	}
}

// Whatever a node says, there is an error or a canonical view.
func FuzzViewOf(f *testing.F) {
	f.Add(goodMetadata)
	f.Add(`{"BIND":"::1","GATEWAY_PORT":15443,"TCP_OUTBOUND":true}`)
	f.Add(`{"BIND":"1.2.3.4","INBOUND":[{}]}`)
	f.Fuzz(func(t *testing.T, metadata string) {
		for _, role := range []Role{Sidecar, Gateway} {
			v, err := ViewOf(role, "a", "shop", node(t, metadata))
			if err != nil {
				continue
			}
			if again, err := v.Declared().canonical(); err != nil || again != v.Workload {
				t.Fatalf("%q: %q, %v", v.Workload, again, err)
			}
		}
	})
}

// A name is parsed to exactly the request that has it.
func FuzzRequestNames(f *testing.F) {
	f.Add("outbound|80||catalog.shop.svc.cluster.local")
	f.Add("outbound_.80_.v1_.catalog.shop.svc.cluster.local")
	f.Add("outbound|080||catalog.shop.svc.cluster.local")
	f.Add("outbound_.80_._.catalog.shop.svc.cluster.local")
	f.Fuzz(func(t *testing.T, name string) {
		if r, ok := parseOutboundName(name); ok && r.OutboundName() != name {
			t.Fatalf("%q is %+v", name, r)
		}
		if r, ok := parseServerName(name); ok && r.ServerName() != name {
			t.Fatalf("%q is %+v", name, r)
		}
	})
}

func TestRequestNames(t *testing.T) {
	for _, r := range []Request{
		{mesh.ServiceName{Namespace: "shop", Name: "catalog"}, 80, ""},
		{mesh.ServiceName{Namespace: "shop", Name: "catalog"}, 65535, "v1"},
		{mesh.ServiceName{Namespace: "svc", Name: "svc"}, 1, "a_b"},
	} {
		if got, ok := parseOutboundName(r.OutboundName()); !ok || got != r {
			t.Errorf("%+v: %+v %v", r, got, ok)
		}
		if got, ok := parseServerName(r.ServerName()); !ok || got != r {
			t.Errorf("%+v: %+v %v", r, got, ok)
		}
	}
}
