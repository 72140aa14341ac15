package config

import (
	"net/netip"
	"time"
)

// Config is one version of everything. Immutable. Names refer; a reference may dangle (see the package's doc).
type Config struct {
	Listeners map[string]*Listener
	Routes    map[string]*RouteTable
	Clusters  map[string]*Cluster
	// Ready is set once listeners have come, and everything that they and the clusters refer to.
	Ready bool
}

// RoutesOf returns the routes of an HTTP filter: inline, or by name; nil if they have not arrived.
func (c *Config) RoutesOf(h *HTTP) *RouteTable {
	if h.Routes != nil {
		return h.Routes
	}
	return c.Routes[h.RouteName]
}

// Direction of a listener's traffic, seen from the application.
type Direction uint8

// The directions. A gateway's listener has none.
const (
	Unspecified Direction = iota
	Inbound
	Outbound
)

// Listener is one bound address.
type Listener struct {
	Name      string
	Address   netip.AddrPort
	Direction Direction
	// TLSInspector: read the ClientHello before a chain is chosen. Set too if a chain matches on server names.
	TLSInspector bool
	// InspectorTimeout bounds reading the ClientHello; never 0 (default 10 s).
	InspectorTimeout time.Duration
	Chains           []*FilterChain // in order; the most specific match wins as in Envoy, see [Listener.Chain]
	Default          *FilterChain   // nil: a connection that matches no chain is closed
}

// FilterChain is what to do with a connection. Exactly one of HTTP and TCP is set.
type FilterChain struct {
	Name  string
	Match ChainMatch
	TLS   *DownstreamTLS // nil: plain text
	// RBAC are network filters, in order, before HTTP or TCP.
	RBAC []*RBAC
	// SNICluster: the upstream cluster of TCP is the SNI itself (envoy.filters.network.sni_cluster).
	SNICluster bool
	HTTP       *HTTP
	TCP        *TCP
}

// ChainMatch: empty lists match everything.
type ChainMatch struct {
	// ServerNames are lower case; "*.suffix" matches any subdomain.
	ServerNames []string
	Transport   string   // "", "tls" or "raw_buffer"
	ALPN        []string // any of what the client offers
	Port        uint16   // 0: any
}

// DownstreamTLS terminates TLS with the proxy's own SVID. Certificates and validation come from the Workload API,
// whatever SDS source the resource names.
type DownstreamTLS struct {
	ALPN          []string // server preference
	RequireClient bool
	// SANs are the exact URI names allowed; empty: any identity that verifies (authorisation is RBAC's).
	SANs []string
}

// HTTP is the HTTP connection manager.
type HTTP struct {
	Codec     Codec
	RouteName string      // RDS; empty if Routes is set
	Routes    *RouteTable // inline
	// RBAC are HTTP filters, in order, before routing.
	RBAC []*RBAC
	// IdleTimeout of a connection without requests; 0: none (Envoy's default of 1 h is filled in when absent).
	IdleTimeout time.Duration
	// HeadersTimeout to receive a request's head; 0: none beyond the proxy's own limit.
	HeadersTimeout time.Duration
	// StreamIdleTimeout without a byte either way; 0: none. Absent means 5 min as in Envoy.
	StreamIdleTimeout time.Duration
	// RequestTimeout to receive a whole request; 0: none.
	RequestTimeout       time.Duration
	MaxHeaderKiB         uint32 // never 0; default 60
	MaxConcurrentStreams uint32 // HTTP/2; never 0; default 100
	ServerName           string // "" means the proxy's own
	ForwardClientCert    ForwardClientCert
	// Connect: upgrade_configs: CONNECT; the proxy refuses the method otherwise.
	Connect bool
}

// Codec is what a downstream connection may speak.
type Codec uint8

// The codecs. AutoCodec decides by ALPN, or by HTTP/2's preface.
const (
	AutoCodec Codec = iota
	HTTP1
	HTTP2
)

// ForwardClientCert is what happens to x-forwarded-client-cert.
type ForwardClientCert uint8

// As Envoy's forward_client_cert_details.
const (
	SanitizeXFCC ForwardClientCert = iota
	ForwardOnlyXFCC
	AppendForwardXFCC
	SanitizeSetXFCC
	AlwaysForwardOnlyXFCC
)

// TCP is tcp_proxy.
type TCP struct {
	// Clusters to choose from by weight; one or more, except with SNICluster, where it may be empty.
	Clusters    []WeightedCluster
	TotalWeight uint64
	IdleTimeout time.Duration // 0: none; absent means 1 h
	MaxAttempts uint32        // connect attempts; never 0, default 1
}

// RBACAction is what a match means.
type RBACAction uint8

// The actions. Allow: refused unless a policy matches. Deny: refused if one matches. Log never refuses.
const (
	RBACAllow RBACAction = iota
	RBACDeny
	RBACLog
)

// RBAC is one RBAC filter. Policies are sorted by name; the first that matches is the one reported.
type RBAC struct {
	Action   RBACAction
	Policies []RBACPolicy
	// Shadow: never enforced.
	Shadow bool
}

// RBACPolicy matches when one permission and one principal do; it has one of each at least.
type RBACPolicy struct {
	Name        string
	Permissions []Condition
	Principals  []Condition
}

// ConditionKind is what a [Condition] looks at.
type ConditionKind uint8

// The kinds. And, Or and Not use Of; the rest their own field. A condition on what a connection does not have (a
// header in a TCP filter, a principal without TLS) is false.
const (
	Any ConditionKind = iota
	And
	Or
	Not
	Header          // Header
	Path            // String, of the path without query
	DestinationIP   // Prefix
	DestinationPort // Port
	ServerName      // String, of the SNI
	SourceIP        // Prefix, of the connection's peer (direct_remote_ip, source_ip)
	RemoteIP        // Prefix, of the client as x-forwarded-for says
	Authenticated   // String, of the peer's URI name with scheme; nil: any verified identity
)

// Condition is a node of a permission or principal tree.
type Condition struct {
	Kind   ConditionKind
	Of     []Condition
	Header *HeaderMatch
	String *StringMatch
	Prefix netip.Prefix
	Port   uint16
}
