package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Environment is what a conversion depends on beside the records.
type Environment struct {
	// Cluster is the own cluster, as registered.
	Cluster *mesh.Cluster
	// Announced are the endpoints of the service that sidecars announced, by address; nil: none.
	Announced func(mesh.ServiceName) map[netip.Addr]Announced
}

// Announced is an endpoint as its sidecar announced it, and the slice that it stands in.
type Announced struct {
	Slice    string
	Endpoint mesh.Endpoint
}

// Reason why something of a Service is left out; also the label of a metric.
type Reason string

// The reasons.
const (
	NamespaceRefused Reason = "namespace"     // the cluster may not publish in it
	ExternalName     Reason = "external_name" // it has no endpoints
	NotTCP           Reason = "protocol"
	NoPorts          Reason = "no_ports"
	NetworkRefused   Reason = "network" // outside the cluster's networks and their CIDRs
	OtherFamily      Reason = "family"  // the Service has endpoints of a family that it prefers
	NotAnAddress     Reason = "fqdn"
	PodUnknown       Reason = "pod"   // its pod is not there, or not yet
	OtherPorts       Reason = "ports" // its sidecar serves none of the Service's
	Invalid          Reason = "invalid"
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{NamespaceRefused, ExternalName, NotTCP, NoPorts, NetworkRefused, OtherFamily, NotAnAddress, PodUnknown, OtherPorts, Invalid}
}

// Rejection is one thing that was left out.
type Rejection struct {
	Reason Reason
	What   string // "slice/endpoint"; empty: of the Service itself
	Text   string // for people
}

// Validity is what a ServiceExport's condition Valid says (KEP-1645).
type Validity string

// The validities: the condition's reasons.
const (
	NotExported        Validity = "" // there is no ServiceExport
	Valid              Validity = "Valid"
	NoService          Validity = "NoService"
	InvalidServiceType Validity = "InvalidServiceType"
	NotAdmitted        Validity = "NamespaceNotAdmitted" // ours: the registration does not let the cluster publish it
)

// Result is what became of a Service.
type Result struct {
	Objects    []mesh.Object // in order of their keys
	Rejections []Rejection
	Export     Validity
}

// conversion is one run for one Service.
type conversion struct {
	state      *State
	env        Environment
	rejections []Rejection
	account    string // of the last identity made, and that
	id         spiffeid.ID
}

func (c *conversion) reject(reason Reason, what, format string, args ...any) {
	c.rejections = append(c.rejections, Rejection{reason, what, fmt.Sprintf(format, args...)})
}

// apiServer is the Service of the API server, which is in every cluster and no service of a mesh.
func apiServer() Name { return Name{"default", "kubernetes"} }

// Convert returns what the Service of this name is in the mesh. It is empty if there is no Service.
func (s *State) Convert(env Environment, name Name) Result {
	c := &conversion{state: s, env: env}
	record, exported := s.services[name], s.exports[name] != nil
	var service *mesh.Service
	if record != nil && name != apiServer() {
		service = c.service(record)
	}
	var out Result
	if service != nil {
		service.Exported = exported
		out.Objects = append(c.endpoints(record, service), service)
		slices.SortFunc(out.Objects, func(a, b mesh.Object) int { return strings.Compare(string(a.Key()), string(b.Key())) })
	}
	if exported {
		out.Export = validity(record, service)
	}
	out.Rejections = c.rejections
	return out
}

func validity(record *Service, service *mesh.Service) Validity {
	switch {
	case record == nil:
		return NoService
	case record.External:
		return InvalidServiceType
	case service == nil:
		return NotAdmitted
	}
	return Valid
}
