package catalog_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/xds"
)

var update = flag.Bool("update", false, "write what is got into testdata")

// Each file of testdata shows one behaviour: lines that make a mesh and ask about it, then "--" and the answer.
//
//	cluster ID NETWORK [drained]
//	service NAME CLUSTER NAME:PORT:PROTOCOL[,...] [exported]
//	endpoint SERVICE CLUSTER NAME ADDRESS NETWORK LOCALITY [HEALTH] [weight=N] [sa=ACCOUNT] [LABEL=VALUE]
//	gateway CLUSTER NAME NETWORK ADDRESS LOCALITY [HEALTH]
//	policy KIND NAMESPACE NAME SPEC
//	client ROLE CLUSTER NETWORK LOCALITY NAMESPACE [WORKLOAD]
//	assign SERVICE PORT [SUBSET] | get TYPE NAME | names TYPE
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(data), "\n--\n")
			got := new(script).run(t, input)
			if *update {
				err = os.WriteFile(file, []byte(input+"\n--\n"+got), 0o644)
			} else if got != want {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

type script struct {
	objects []mesh.Object
	slices  map[string]*mesh.EndpointSlice
	view    translate.View
	out     bytes.Buffer
}

func (s *script) run(t *testing.T, input string) string {
	s.slices = map[string]*mesh.EndpointSlice{}
	for _, line := range strings.Split(input, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(strings.Fields(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s.out.String()
}

func (s *script) snapshot() (*mesh.Snapshot, error) {
	for _, object := range s.objects {
		if err := object.Validate(); err != nil {
			return nil, err
		}
	}
	return new(mesh.Store).Update(mesh.Delta{Upserts: s.objects}), nil
}

func (s *script) line(words []string) error {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "cluster":
		c := &mesh.Cluster{ID: mesh.ClusterID(word(1)), Region: "eu", TrustDomain: domain(word(1)), State: mesh.ClusterActive}
		c.Networks = []mesh.NetworkRange{{Name: mesh.Network(word(2))}}
		if word(3) == "drained" {
			c.State = mesh.ClusterDrained
		}
		s.objects = append(s.objects, c)
	case "service":
		s.service(word(1), word(2), word(3), word(4) == "exported")
	case "endpoint":
		return s.endpoint(words)
	case "gateway":
		address := netip.MustParseAddrPort(word(4))
		g := &mesh.Gateway{Cluster: mesh.ClusterID(word(1)), Name: word(2), Network: mesh.Network(word(3)),
			Address: address.Addr(), Port: address.Port(), Locality: locality(word(5)), Health: mesh.Healthy}
		if word(6) != "" {
			g.Health = mesh.Health(word(6))
		}
		s.objects = append(s.objects, g)
	case "policy":
		return s.policy(words[1:4], strings.Join(words[4:], " "))
	case "client":
		s.view = translate.View{Role: translate.Role(word(1)), Cluster: mesh.ClusterID(word(2)), Network: mesh.Network(word(3)),
			Locality: locality(word(4)), Namespace: word(5), Workload: word(6)}
	default:
		return s.ask(words[0], word(1), word(2), word(3))
	}
	return nil
}

func domain(cluster string) spiffeid.TrustDomain {
	return spiffeid.RequireTrustDomainFromString(cluster + ".mesh")
}

func locality(s string) mesh.Locality {
	l, err := mesh.ParseLocality(s)
	if err != nil {
		panic(err)
	}
	return l
}

func service(s string) mesh.ServiceName {
	name, err := mesh.ParseServiceName(s)
	if err != nil {
		panic(err)
	}
	return name
}

func (s *script) service(name, cluster, ports string, exported bool) {
	o := &mesh.Service{Name: service(name), Cluster: mesh.ClusterID(cluster), Exported: exported}
	for _, port := range strings.Split(ports, ",") {
		parts := strings.Split(port, ":")
		number, _ := strconv.Atoi(parts[1])
		o.Ports = append(o.Ports, mesh.ServicePort{Name: parts[0], Port: uint16(number), Protocol: mesh.Protocol(parts[2])})
	}
	s.objects = append(s.objects, o)
}

func (s *script) endpoint(words []string) error {
	address := netip.MustParseAddrPort(words[4])
	name := service(words[1])
	e := mesh.Endpoint{Name: words[3], Address: address.Addr(), Network: mesh.Network(words[5]), Locality: locality(words[6]),
		Ports: map[string]uint16{"http": address.Port(), "db": address.Port()}, Health: mesh.Healthy, Weight: 1, Labels: map[string]string{}}
	for _, word := range words[7:] {
		switch key, value, ok := strings.Cut(word, "="); {
		case !ok:
			e.Health = mesh.Health(word)
		case key == "weight":
			weight, _ := strconv.Atoi(value)
			e.Weight = uint32(weight)
		case key == "sa":
			e.Identity = spiffeid.RequireFromSegments(domain(words[2]), "ns", name.Namespace, "sa", value)
		default:
			e.Labels[key] = value
		}
	}
	key := words[1] + "/" + words[2]
	if s.slices[key] == nil {
		s.slices[key] = &mesh.EndpointSlice{Service: name, Cluster: mesh.ClusterID(words[2]), Slice: "s"}
		s.objects = append(s.objects, s.slices[key])
	}
	s.slices[key].Endpoints = append(s.slices[key].Endpoints, e)
	return nil
}

func (s *script) policy(words []string, text string) error {
	spec, err := mesh.DecodePolicySpec(mesh.PolicyKind(words[0]), []byte(text))
	s.objects = append(s.objects, &mesh.Policy{Kind: mesh.PolicyKind(words[0]), Namespace: words[1], Name: words[2], Spec: spec})
	return err
}

var typeOf = map[string]xds.Type{"cluster": xds.Cluster, "endpoints": xds.Endpoints, "listener": xds.Listener, "route": xds.Route}

func (s *script) ask(verb, a, b, c string) error {
	snapshot, err := s.snapshot()
	if err != nil {
		return err
	}
	switch verb {
	case "assign":
		port, _ := strconv.Atoi(b)
		s.printAssignment(translate.Assign(snapshot, s.view, translate.Request{Service: service(a), Port: uint16(port), Subset: c}))
	case "names":
		for name := range catalog.Of(s.view).Names(snapshot, typeOf[a]) {
			fmt.Fprintln(&s.out, name)
		}
	case "get":
		resource, ok := catalog.Of(s.view).Get(snapshot, typeOf[a], b)
		if !ok {
			fmt.Fprintf(&s.out, "no %s %s\n", a, b)
			return nil
		}
		return s.printResource(resource)
	default:
		return fmt.Errorf("what is %q?", verb)
	}
	return nil
}

func (s *script) printResource(r xds.Resource) error {
	var any anypb.Any
	if err := proto.Unmarshal(r.Any, &any); err != nil {
		return err
	}
	message, err := any.UnmarshalNew()
	if err != nil {
		return err
	}
	if checked, ok := message.(interface{ ValidateAll() error }); ok {
		if err := checked.ValidateAll(); err != nil {
			return err // Envoy would NACK it
		}
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
	if err != nil {
		return err
	}
	if err := json.Indent(&s.out, data, "", " "); err != nil {
		return err
	}
	s.out.WriteByte('\n')
	return nil
}

func (s *script) printAssignment(a translate.Assignment) {
	fmt.Fprintf(&s.out, "rules: %s\n", strings.Join(a.Rules, "; "))
	shares := a.Shares()
	for i, level := range a.Levels {
		fmt.Fprintf(&s.out, "level %d: %.0f%%\n", i, 100*shares.Levels[i])
		for j, p := range level {
			fmt.Fprintf(&s.out, "  %s (%d) %s %s %s weight %d: %.1f%%: %s\n", p.Locality, p.LocalityWeight, p.Name, p.Address,
				p.Health, p.Weight, 100*shares.Endpoints[i][j], p.Reason)
		}
	}
	for _, d := range a.Dropped {
		fmt.Fprintf(&s.out, "dropped %s/%s: %s\n", d.Cluster, d.Name, d.Reason)
	}
}
