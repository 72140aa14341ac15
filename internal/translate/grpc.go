package translate

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// The roles of workloads that follow xDS by themselves, without a proxy (gRFC A27).
const (
	// GRPC is a gRPC client that sends the server name it is told (gRFC A101), so that gateways can route it.
	GRPC Role = "grpc"
	// GRPCDirect is one that sends none: what is behind a gateway is out of its reach.
	GRPCDirect Role = "grpc-direct"
)

// Proxyless tells whether a client is a gRPC library and not a proxy: it has listeners by target and no others.
func (r Role) Proxyless() bool { return r == GRPC || r == GRPCDirect }

// What a gRPC library says of itself: its user agent by itself, the rest from its bootstrap file.
const (
	grpcUserAgent  = "gRPC " // "gRPC Go", "gRPC Java", "gRPC C-core"
	grpcNodePrefix = "grpc~"
	// ServerNameKey is the key of node.metadata that says true if the client sends the server name it is told.
	ServerNameKey = "GRPC_SERVER_NAME"
)

// workloadRole is what kind of client a workload's process is. It changes the shape of what it gets, not what it may
// see.
func workloadRole(node *corev3.Node) Role {
	switch {
	case !strings.HasPrefix(node.GetUserAgentName(), grpcUserAgent) && !strings.HasPrefix(node.GetId(), grpcNodePrefix):
		return Sidecar
	case node.GetMetadata().GetFields()[ServerNameKey].GetBoolValue():
		return GRPC
	}
	return GRPCDirect
}

// ServesGRPC tells whether a port speaks what gRPC needs, HTTP/2.
func ServesGRPC(p mesh.ServicePort) bool { return p.Protocol == mesh.GRPC || p.Protocol == mesh.HTTP2 }
