package file

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

var cluster = &mesh.Cluster{
	ID: "east", Region: "eu-west", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive, Namespaces: []string{"shop"},
	Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
}

const good = `apiVersion: periplus.io/v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec:
  exported: true
  ports:
  - {name: http, port: 80, protocol: http}
---
apiVersion: periplus.io/v1
kind: Endpoints
metadata: {name: catalog, namespace: shop}
spec:
  endpoints:
  - name: vm-1
    address: 10.0.0.7
    ports: {http: 8080}
    locality: eu-west/a
    labels: {version: v1}
    identity: spiffe://east.test/ns/shop/sa/catalog
`

func TestParse(t *testing.T) {
	objects, err := Parse("services.yaml", []byte(good), cluster)
	if err != nil || len(objects) != 2 {
		t.Fatalf("%v %v", objects, err)
	}
	service, slice := objects[0].(*mesh.Service), objects[1].(*mesh.EndpointSlice)
	if !service.Exported || service.Ports[0] != (mesh.ServicePort{Name: "http", Port: 80, Protocol: mesh.HTTP}) {
		t.Errorf("service: %+v", service)
	}
	e := slice.Endpoints[0]
	if e.Network != "n1" || e.Health != mesh.Healthy || e.Weight != 1 || e.Locality != (mesh.Locality{Region: "eu-west", Zone: "a"}) || slice.Slice != SliceName {
		t.Errorf("endpoint: %+v", e)
	}
}

// Each error names the file, the line and what to do.
func TestParseRefuses(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":        {edit("exported", "exportet"), "services.yaml:5: field spec.exportet is not known: want one of endpoints, exported, ports"},
		"unknown field deep":   {edit("port: 80", "prot: 80"), "services.yaml:7: field spec.ports.prot is not known: want one of name, port, protocol"},
		"unknown kind":         {edit("kind: Service", "kind: Servic"), `kind is "Servic": write Service or Endpoints`},
		"no version":           {edit("apiVersion: periplus.io/v1\nkind: S", "kind: S"), `apiVersion is "": write "periplus.io/v1"`},
		"duplicate key":        {edit("kind: Service", "kind: Service\nkind: Service"), "services.yaml:3: kind is in line 2 already"},
		"duplicate object":     {good + "---\n" + strings.Split(good, "---")[0], "Service shop/catalog is in line 1 already"},
		"alias":                {edit("{name: catalog, namespace: shop}", "&a {name: catalog, namespace: shop}"), "services.yaml:3: anchors and aliases are not allowed"},
		"port too large":       {edit("port: 80", "port: 80000"), "services.yaml:1:"},
		"protocol":             {edit("protocol: http", "protocol: htp"), `protocol "htp" is none of http, http2, grpc, tcp`},
		"foreign namespace":    {edit("namespace: shop", "namespace: bank"), `cluster "east" may not publish in "bank"`},
		"foreign address":      {edit("10.0.0.7", "192.168.0.1"), "outside the CIDRs of network"},
		"foreign identity":     {edit("spiffe://east.test", "spiffe://west.test"), `not in the cluster's trust domain "east.test"`},
		"endpoint without":     {edit("    ports: {http: 8080}\n", ""), "no ports"},
		"deep":                 {strings.Repeat("[", 100) + strings.Repeat("]", 100), "nested deeper than 64"},
		"not yaml":             {"\t{", "services.yaml"},
		"a list":               {"- a\n- b\n", "want fields, one of"},
		"endpoints in service": {edit("  exported: true", "  endpoints: [{name: a}]"), "kind Endpoints"},
		"too large":            {strings.Repeat("#", maxBytes+1), "at most"},
		"null everywhere":      {"apiVersion: ~\nkind: ~\nmetadata: ~\nspec: ~\n", `apiVersion is "`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse("services.yaml", []byte(c.text), cluster); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestWatcherKeepsTheLastGood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "services.yaml")
	var applied [][]mesh.Object
	w, err := New(Config{
		Path: path, Cluster: func() *mesh.Cluster { return cluster }, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		Apply: func(o []mesh.Object) { applied = append(applied, o) },
	})
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, confirm bool, times int, problem string) {
		t.Helper()
		if again := w.step(); again != confirm || len(applied) != times || !strings.Contains(w.Status().Error, problem) || problem == "" && w.Status().Error != "" {
			t.Errorf("%s: confirm %v, applied %d times, error %q", what, again, len(applied), w.Status().Error)
		}
	}
	expect("no file", false, 0, "no such file")
	write(strings.Split(good, "---")[0])
	expect("half of the first", true, 0, "no such file")
	write(good)
	expect("first, seen once", true, 0, "no such file")
	expect("first", false, 1, "")
	expect("unchanged", false, 1, "")
	write(good + "---\nhalf")
	expect("seen once", true, 1, "")
	write(good + "---\n" + strings.ReplaceAll(strings.Split(good, "---")[0], "catalog", "extra"))
	expect("was half a write", true, 1, "")
	expect("seen twice", false, 2, "")
	write("kind: bad")
	w.step()
	expect("bad", false, 2, "apiVersion")
	write("")
	w.step()
	expect("emptied", false, 2, "is empty now")
	os.Remove(path)
	expect("gone", false, 2, "no such file")
	write("")
	expect("made anew, and nothing written yet", true, 2, "no such file")
	write(strings.Split(good, "---")[0])
	expect("half of it", true, 2, "no such file")
	write(good)
	expect("all of it, seen once", true, 2, "no such file")
	expect("back", false, 3, "")
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("---\n---\n? {a: b}\n: c\n"))
	f.Add([]byte("spec: {endpoints: [{ports: {http: 99999999999999999999}}]}\n"))
	f.Add([]byte("spec:\n  ports: !!binary aGVsbG8=\n<<: {a: b}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, err := Parse("f", data, cluster)
		if err != nil {
			return
		}
		for _, o := range objects {
			if err := o.Validate(); err != nil {
				t.Errorf("accepted %s: %v", o.Key(), err)
			}
		}
	})
}

// What Format writes, Parse reads back as the same objects.
func TestFormatIsParsedBack(t *testing.T) {
	const more = "---\napiVersion: periplus.io/v1\nkind: Endpoints\nmetadata: {name: catalog, namespace: shop}\nspec:\n  endpoints:\n" +
		"  - {name: vm-1, address: 10.0.0.7, ports: {http: 8080}, network: n1, locality: /a, weight: 7, health: draining, labels: {a: b}}\n"
	for _, text := range []string{good, strings.Split(good, "---")[0] + more} {
		objects, err := Parse("first", []byte(text), cluster)
		if err != nil {
			t.Fatal(err)
		}
		formatted, err := Format(objects...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseSlice("again", formatted, cluster, SliceName)
		if err != nil || len(again) != len(objects) {
			t.Fatalf("%v\n%s", err, formatted)
		}
		for i := range again {
			if meshpb.Digest(again[i]) != meshpb.Digest(objects[i]) {
				t.Errorf("got  %+v\nwant %+v", again[i], objects[i])
			}
		}
		if e := again[1].(*mesh.EndpointSlice).Endpoints[0]; e.Locality.String() != "eu-west/a" {
			t.Errorf("locality %s", e.Locality)
		}
	}
}
