package translate

import (
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Role is what kind of proxy a view belongs to.
type Role string

// The roles. A gateway sees the exported services of its own network only.
const (
	Sidecar Role = "sidecar"
	Gateway Role = "gateway"
)

// View is everything about a client that its configuration depends on, and so the key under which translations are
// shared. It is comparable. Cluster, Namespace and Role come from the verified certificate, the rest from xDS node
// data that can widen nothing.
type View struct {
	Cluster   mesh.ClusterID
	Network   mesh.Network
	Locality  mesh.Locality
	Namespace string
	Role      Role
	// Workload is the canonical JSON of a [Workload]: it shapes the client's own listeners and nothing else, so
	// that clusters, endpoints and routes are shared by all workloads of a locality and namespace.
	Workload string
}

// Workload is what a proxy declares of itself in node.metadata, under the same (JSON) names.
type Workload struct {
	// Bind is the address its listeners are on.
	Bind string `json:"BIND"`
	// OutboundPort is the one port for HTTP by authority; 0: none.
	OutboundPort uint16 `json:"OUTBOUND_PORT,omitempty"`
	// TCPOutbound asks for a listener at Bind:<service port> for each TCP port of each visible service.
	TCPOutbound bool              `json:"TCP_OUTBOUND,omitempty"`
	Labels      map[string]string `json:"LABELS,omitempty"`
	Inbound     []Inbound         `json:"INBOUND,omitempty"`
	// GatewayPort is set by gateways.
	GatewayPort uint16 `json:"GATEWAY_PORT,omitempty"`
}

// Inbound is one port that the workload serves.
type Inbound struct {
	Service      string        `json:"SERVICE"` // name.namespace
	PortName     string        `json:"PORT_NAME"`
	ServicePort  uint16        `json:"SERVICE_PORT"`
	Protocol     mesh.Protocol `json:"PROTOCOL"`
	EndpointPort uint16        `json:"ENDPOINT_PORT"` // where the sidecar listens, at Bind
	App          string        `json:"APP"`           // host:port of the application
}
