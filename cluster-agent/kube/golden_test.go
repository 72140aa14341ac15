package kube

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testCluster() *mesh.Cluster {
	return &mesh.Cluster{
		ID: "east", Region: "eu", TrustDomain: spiffeid.RequireTrustDomainFromString("east.mesh"), State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: "east", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/16")}}},
	}
}

// Each file is manifests, perhaps announcements and a registration, and what becomes of them.
func TestConversion(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) { golden(t, path) })
	}
}

func golden(t *testing.T, path string) {
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	env := convert.Environment{Cluster: testCluster()}
	var state convert.State
	var want *txtar.File
	for i, file := range archive.Files {
		switch file.Name {
		case "objects.yaml":
			for _, record := range records(t, file.Data) {
				state.Set(record)
			}
		case "registration":
			registration(t, env.Cluster, string(file.Data))
		case "announced":
			env.Announced = announced(t, string(file.Data))
		case "mesh":
			want = &archive.Files[i]
		}
	}
	if want == nil {
		archive.Files = append(archive.Files, txtar.File{Name: "mesh"})
		want = &archive.Files[len(archive.Files)-1]
	}
	got := show(&state, env)
	if *update {
		want.Data = []byte(got)
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != string(want.Data) {
		t.Errorf("got\n%s\nwant\n%s", got, want.Data)
	}
}

// records reads documents as the API server would give them.
func records(t testing.TB, data []byte) (out []convert.Record) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := yaml.Marshal(&node)
		if err != nil {
			t.Fatal(err)
		}
		var kind struct{ Kind string }
		if err := node.Decode(&kind); err != nil {
			t.Fatal(err)
		}
		e, err := read(typedObject(t, kind.Kind, text))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.(entry).Record)
	}
}

func typedObject(t testing.TB, kind string, text []byte) runtime.Object {
	t.Helper()
	object := map[string]runtime.Object{
		"Service": &corev1.Service{}, "Pod": &corev1.Pod{}, "Node": &corev1.Node{}, "EndpointSlice": &discoveryv1.EndpointSlice{},
		"ServiceExport": &unstructured.Unstructured{},
	}[kind]
	if object == nil {
		t.Fatalf("kind %q", kind)
	}
	var err error
	if u, ok := object.(*unstructured.Unstructured); ok {
		err = sigsyaml.Unmarshal(text, &u.Object)
	} else {
		err = sigsyaml.UnmarshalStrict(text, object)
	}
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// registration is lines of "namespaces a b" or "network name cidr ...".
func registration(t *testing.T, c *mesh.Cluster, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if words[0] == "namespaces" {
			c.Namespaces = words[1:]
			continue
		}
		network := mesh.NetworkRange{Name: mesh.Network(words[1])}
		for _, cidr := range words[2:] {
			network.CIDRs = append(network.CIDRs, netip.MustParsePrefix(cidr))
		}
		c.Networks = append(c.Networks, network)
	}
}

// announced is lines of "service.namespace name address port-name:port health".
func announced(t *testing.T, text string) func(mesh.ServiceName) map[netip.Addr]convert.Announced {
	t.Helper()
	all := map[mesh.ServiceName]map[netip.Addr]convert.Announced{}
	for line := range strings.Lines(text) {
		var service, name, address, port, health string
		var number uint16
		if _, err := fmt.Sscanf(strings.ReplaceAll(line, ":", " "), "%s %s %s %s %d %s", &service, &name, &address, &port, &number, &health); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		serviceName, err := mesh.ParseServiceName(service)
		if err != nil {
			t.Fatal(err)
		}
		if all[serviceName] == nil {
			all[serviceName] = map[netip.Addr]convert.Announced{}
		}
		e := mesh.Endpoint{
			Name: name, Address: netip.MustParseAddr(address), Ports: map[string]uint16{port: number}, Network: "east", Weight: 7, Health: mesh.Health(health),
			Locality: mesh.Locality{Region: "eu", Zone: "told"}, Identity: spiffeid.RequireFromString("spiffe://east.mesh/ns/shop/sa/told"),
		}
		all[serviceName][e.Address] = convert.Announced{Slice: name, Endpoint: e}
	}
	return func(n mesh.ServiceName) map[netip.Addr]convert.Announced { return all[n] }
}

// show prints what every Service became.
func show(state *convert.State, env convert.Environment) string {
	var out strings.Builder
	names := state.All()
	slices.SortFunc(names, func(a, b convert.Name) int { return strings.Compare(a.String(), b.String()) })
	for _, name := range names {
		result := state.Convert(env, name)
		for _, object := range result.Objects {
			showObject(&out, object)
		}
		if result.Export != "" {
			fmt.Fprintf(&out, "condition %s %s\n", name, result.Export)
		}
		for _, r := range result.Rejections {
			fmt.Fprintf(&out, "left out %s %s [%s] %s\n", name, r.What, r.Reason, r.Text)
		}
	}
	return out.String()
}

func showObject(out *strings.Builder, object mesh.Object) {
	switch o := object.(type) {
	case *mesh.Service:
		fmt.Fprintf(out, "%s exported=%v", o.Key(), o.Exported)
		for _, p := range o.Ports {
			fmt.Fprintf(out, " %s:%d/%s", p.Name, p.Port, p.Protocol)
		}
		fmt.Fprintln(out)
	case *mesh.EndpointSlice:
		fmt.Fprintln(out, o.Key())
		for _, e := range o.Endpoints {
			fmt.Fprintf(out, "  %s %s %v network=%s locality=%s %s weight=%d labels=%v identity=%s\n", e.Name, e.Address, e.Ports, e.Network, e.Locality, e.Health, e.Weight, e.Labels, e.Identity)
		}
	}
}

// What cannot be said in manifests: values that only a wrong server would send.
func TestReadSurvivesNonsense(t *testing.T) {
	port, name := int32(70000), "http"
	for _, object := range []runtime.Object{
		&corev1.Service{}, &corev1.Pod{}, &corev1.Node{}, &discoveryv1.EndpointSlice{}, &unstructured.Unstructured{},
		&corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: -1}, {Port: 70000}}}},
		&discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Port: &port, Name: &name}, {}}, Endpoints: []discoveryv1.Endpoint{{}, {Addresses: []string{"x"}}}},
	} {
		e, err := read(object)
		if err != nil {
			t.Fatal(err)
		}
		var state convert.State
		for _, affected := range state.Set(e.(entry).Record) {
			state.Convert(convert.Environment{Cluster: testCluster()}, affected)
		}
	}
	if _, err := read("nothing"); err == nil {
		t.Error("a string was read")
	}
}
