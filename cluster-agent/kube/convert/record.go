package convert

import (
	"maps"
	"net/netip"
	"slices"
)

// Name is an object's namespace and name; nodes have no namespace.
type Name struct{ Namespace, Name string }

// String is "namespace/name".
func (n Name) String() string { return n.Namespace + "/" + n.Name }

// Record is what is kept of a Kubernetes object: a [*Service], [*Slice], [*Pod], [*Node] or [*Export]. It is not
// written after it was made.
type Record interface {
	Of() Name
	same(Record) bool
}

// Service is what is kept of a core/v1 Service.
type Service struct {
	Name
	Ports []Port
	// External is set for type ExternalName, which has no endpoints.
	External bool
	// Families are the IP families in the Service's order of preference; empty: IPv4, then IPv6.
	Families []Family
}

// Port is one of a Service's.
type Port struct {
	Name     string // may be empty if it is the only one
	Number   uint16
	Protocol string // TCP, UDP, SCTP
	App      string // appProtocol; may be empty
}

// Family of addresses.
type Family string

// The families, as Kubernetes names them.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// Slice is what is kept of a discovery/v1 EndpointSlice.
type Slice struct {
	Name
	Service   string // in the same namespace
	Family    Family // or FQDN, whose addresses are not used
	Ports     map[string]uint16
	Endpoints []Endpoint
}

// Endpoint is one of a slice's.
type Endpoint struct {
	Address                     netip.Addr
	Pod                         string // in the slice's namespace; empty: it stands for none
	Node, Zone                  string // may be empty
	Ready, Serving, Terminating bool
}

// Pod is what is kept of a core/v1 Pod.
type Pod struct {
	Name
	Node, Account string
	Network       string            // by label; may be empty
	Sidecar       bool              // it says that it runs one
	Labels        map[string]string // those that do not name the one pod
}

// Node is what is kept of a core/v1 Node.
type Node struct {
	Name                  string
	Region, Zone, Subzone string
}

// Export is what is kept of a ServiceExport: that it is there, and what its condition Valid says.
type Export struct {
	Name
	Told Validity
}

// Of is the name of each.
func (s *Service) Of() Name { return s.Name }
func (s *Slice) Of() Name   { return s.Name }
func (p *Pod) Of() Name     { return p.Name }
func (n *Node) Of() Name    { return Name{Name: n.Name} }
func (e *Export) Of() Name  { return e.Name }

func (s *Service) same(r Record) bool {
	o, ok := r.(*Service)
	return ok && s.Name == o.Name && s.External == o.External && slices.Equal(s.Ports, o.Ports) && slices.Equal(s.Families, o.Families)
}

func (s *Slice) same(r Record) bool {
	o, ok := r.(*Slice)
	return ok && s.Name == o.Name && s.Service == o.Service && s.Family == o.Family && maps.Equal(s.Ports, o.Ports) && slices.Equal(s.Endpoints, o.Endpoints)
}

func (p *Pod) same(r Record) bool {
	o, ok := r.(*Pod)
	return ok && p.Name == o.Name && p.Node == o.Node && p.Account == o.Account && p.Network == o.Network && p.Sidecar == o.Sidecar && maps.Equal(p.Labels, o.Labels)
}

func (n *Node) same(r Record) bool   { o, ok := r.(*Node); return ok && *n == *o }
func (e *Export) same(r Record) bool { o, ok := r.(*Export); return ok && *e == *o }
