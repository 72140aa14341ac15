package translatetest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// Script is a mesh that is described in lines of text, with a client that looks at it:
//
//	cluster ID NETWORK [drained]
//	service NAME CLUSTER NAME:PORT:PROTOCOL[,...] [exported]
//	endpoint SERVICE CLUSTER NAME ADDRESS NETWORK LOCALITY [HEALTH] [weight=N] [sa=ACCOUNT] [LABEL=VALUE]
//	gateway CLUSTER NAME NETWORK ADDRESS LOCALITY [HEALTH]
//	policy KIND NAMESPACE NAME SPEC
//	client ROLE CLUSTER NETWORK LOCALITY NAMESPACE [WORKLOAD]
//
// The zero Script is an empty mesh.
type Script struct {
	View translate.View
	// Ask gets the words of every other line; nil ignores them.
	Ask     func(words []string) error
	objects []mesh.Object
	slices  map[string]*mesh.EndpointSlice
}

// Run reads the lines; empty ones and those that begin with '#' say nothing.
func (s *Script) Run(input string) error {
	for _, line := range strings.Split(input, "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if err := s.line(strings.Fields(line)); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
	}
	return nil
}

// Objects are what the lines so far said.
func (s *Script) Objects() []mesh.Object { return s.objects }

// Snapshot is the mesh that the lines so far made.
func (s *Script) Snapshot() (*mesh.Snapshot, error) {
	for _, object := range s.objects {
		if err := object.Validate(); err != nil {
			return nil, err
		}
	}
	return new(mesh.Store).Update(mesh.Delta{Upserts: s.objects}), nil
}

func (s *Script) line(words []string) (err error) {
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	switch words[0] {
	case "cluster":
		s.cluster(word(1), word(2), word(3) == "drained")
	case "service":
		return s.service(word(1), word(2), word(3), word(4) == "exported")
	case "endpoint":
		return s.endpoint(words)
	case "gateway":
		return s.gateway(words[1:6], word(6))
	case "policy":
		return s.policy(words[1:4], strings.Join(words[4:], " "))
	case "client":
		s.View = translate.View{Role: translate.Role(word(1)), Cluster: mesh.ClusterID(word(2)), Network: mesh.Network(word(3)),
			Namespace: word(5), Workload: word(6)}
		s.View.Locality, err = mesh.ParseLocality(word(4))
	default:
		if s.Ask != nil {
			return s.Ask(words)
		}
	}
	return err
}

func (s *Script) cluster(id, network string, drained bool) {
	c := &mesh.Cluster{ID: mesh.ClusterID(id), Region: "eu", TrustDomain: Domain(mesh.ClusterID(id)), State: mesh.ClusterActive}
	c.Networks = []mesh.NetworkRange{{Name: mesh.Network(network)}}
	if drained {
		c.State = mesh.ClusterDrained
	}
	s.objects = append(s.objects, c)
}

func (s *Script) service(text, cluster, ports string, exported bool) error {
	name, err := mesh.ParseServiceName(text)
	if err != nil {
		return err
	}
	o := &mesh.Service{Name: name, Cluster: mesh.ClusterID(cluster), Exported: exported}
	for _, port := range strings.Split(ports, ",") {
		parts := strings.Split(port, ":")
		number, err := strconv.ParseUint(parts[1], 10, 16)
		if err != nil {
			return err
		}
		o.Ports = append(o.Ports, mesh.ServicePort{Name: parts[0], Port: uint16(number), Protocol: mesh.Protocol(parts[2])})
	}
	s.objects = append(s.objects, o)
	return nil
}

func (s *Script) endpoint(words []string) error {
	name, err := mesh.ParseServiceName(words[1])
	if err != nil {
		return err
	}
	address, err := netip.ParseAddrPort(words[4])
	if err != nil {
		return err
	}
	at, err := mesh.ParseLocality(words[6])
	if err != nil {
		return err
	}
	e := mesh.Endpoint{Name: words[3], Address: address.Addr(), Network: mesh.Network(words[5]), Locality: at,
		Ports: map[string]uint16{"http": address.Port(), "db": address.Port()}, Health: mesh.Healthy, Weight: 1, Labels: map[string]string{}}
	for _, word := range words[7:] {
		switch key, value, ok := strings.Cut(word, "="); {
		case !ok:
			e.Health = mesh.Health(word)
		case key == "weight":
			weight, _ := strconv.Atoi(value)
			e.Weight = uint32(weight)
		case key == "sa":
			e.Identity = spiffeid.RequireFromSegments(Domain(mesh.ClusterID(words[2])), "ns", name.Namespace, "sa", value)
		default:
			e.Labels[key] = value
		}
	}
	slice := s.slice(name, mesh.ClusterID(words[2]))
	slice.Endpoints = append(slice.Endpoints, e)
	return nil
}

func (s *Script) slice(name mesh.ServiceName, cluster mesh.ClusterID) *mesh.EndpointSlice {
	key := name.String() + "/" + string(cluster)
	if s.slices == nil {
		s.slices = map[string]*mesh.EndpointSlice{}
	}
	if s.slices[key] == nil {
		s.slices[key] = &mesh.EndpointSlice{Service: name, Cluster: cluster, Slice: "s"}
		s.objects = append(s.objects, s.slices[key])
	}
	return s.slices[key]
}

func (s *Script) gateway(words []string, health string) error {
	address, err := netip.ParseAddrPort(words[3])
	if err != nil {
		return err
	}
	at, err := mesh.ParseLocality(words[4])
	if err != nil {
		return err
	}
	g := &mesh.Gateway{Cluster: mesh.ClusterID(words[0]), Name: words[1], Network: mesh.Network(words[2]),
		Address: address.Addr(), Port: address.Port(), Locality: at, Health: mesh.Healthy}
	if health != "" {
		g.Health = mesh.Health(health)
	}
	s.objects = append(s.objects, g)
	return nil
}

func (s *Script) policy(words []string, text string) error {
	spec, err := mesh.DecodePolicySpec(mesh.PolicyKind(words[0]), []byte(text))
	s.objects = append(s.objects, &mesh.Policy{Kind: mesh.PolicyKind(words[0]), Namespace: words[1], Name: words[2], Spec: spec})
	return err
}
