package config

import (
	"net/netip"
	"time"
)

// Cluster is an upstream. Settings is pointer-identical for as long as the CDS resource is; Endpoints for as long as
// the EDS resource is.
type Cluster struct {
	Name      string
	Settings  *Settings
	Endpoints *Endpoints // nil: have not arrived yet
}

// Discovery is how endpoints are found.
type Discovery uint8

// The ways.
const (
	EDS Discovery = iota
	Static
	StrictDNS // Endpoints hold host names in Endpoint.Host, resolved for each connection
)

// Settings is everything of a cluster but its endpoints.
type Settings struct {
	Name           string
	Service        string // filter metadata "periplus" or Istio's: destination host name; "" if unknown
	Discovery      Discovery
	EDSName        string        // never "" for EDS
	ConnectTimeout time.Duration // never 0; default 5 s
	IdleTimeout    time.Duration // of pooled connections; 0: none; absent means 1 h
	// MaxRequestsPerConnection; 0: no limit. MaxConnectionDuration; 0: none.
	MaxRequestsPerConnection uint32
	MaxConnectionDuration    time.Duration
	Protocol                 Protocol
	HTTP2                    HTTP2Options
	TLS                      *UpstreamTLS // nil: plain text
	Balance                  Balance
	Breakers                 [2]Breaker     // by Priority
	Outlier                  *Outlier       // nil: none
	HealthChecks             []*HealthCheck // at most one
	KeepaliveIdle            time.Duration  // TCP keepalive; 0: the system's
}

// Protocol spoken to the upstream.
type Protocol uint8

// The protocols. UseDownstream speaks what the request came in; UseALPN what TLS negotiates.
const (
	UpstreamHTTP1 Protocol = iota
	UpstreamHTTP2
	UseDownstream
	UseALPN
)

// HTTP2Options of an upstream.
type HTTP2Options struct {
	MaxConcurrentStreams    uint32        // never 0; default 100
	StreamWindow            uint32        // bytes; never 0; default 64 KiB - 1
	ConnectionWindow        uint32        // bytes; never 0; default 1 MiB
	PingInterval, PingLimit time.Duration // 0: no keepalive
}

// UpstreamTLS is TLS to the upstream with the proxy's own SVID.
type UpstreamTLS struct {
	SNI  string
	ALPN []string
	// SANs are the exact URI names allowed. Empty only if the resource asks for none.
	SANs []string
}

// BalancePolicy chooses a host within a locality.
type BalancePolicy uint8

// The policies.
const (
	RoundRobin BalancePolicy = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// Balance is the load-balancing policy.
type Balance struct {
	Policy           BalancePolicy
	RingMin, RingMax uint64 // RingHash; default 1024, 8 Mi
	// PanicPercent 0..100, whole as in Envoy; default 50; 0: never panic.
	PanicPercent     float64
	LocalityWeighted bool
}

// Breaker holds the limits of one routing priority; defaults are Envoy's: 1024, and 3 retries.
type Breaker struct {
	MaxConnections, MaxPending, MaxRequests, MaxRetries uint32
	// RetryBudgetPercent of active requests, with at least RetryBudgetMin; 0: MaxRetries counts.
	RetryBudgetPercent float64
	RetryBudgetMin     uint32
}

// Outlier is outlier detection; every field has its effective value (defaults: SEMANTICS of Envoy).
type Outlier struct {
	Consecutive5xx, ConsecutiveGatewayFailure, ConsecutiveLocalOriginFailure uint32 // 0: off
	Enforce5xx, EnforceGatewayFailure, EnforceLocalOrigin                    uint32 // percent
	Interval, BaseEjection, MaxEjection                                      time.Duration
	MaxEjectionPercent                                                       uint32
	AlwaysEjectOne                                                           bool
	SplitExternalLocal                                                       bool
}

// HealthCheck is one active health check.
type HealthCheck struct {
	Timeout, Interval                             time.Duration // never 0
	UnhealthyInterval, UnhealthyEdge, HealthyEdge time.Duration // 0: Interval
	Jitter, InitialJitter                         time.Duration
	UnhealthyThreshold, HealthyThreshold          uint32           // never 0
	HTTP                                          *HTTPHealthCheck // nil: TCP connect
	// Send and Receive of a TCP check; both may be empty.
	Send    []byte
	Receive [][]byte
	// GRPC: grpc.health.v1; GRPCService is the service asked for.
	GRPC        bool
	GRPCService string
}

// HTTPHealthCheck asks for a path.
type HTTPHealthCheck struct {
	Host, Path, Method string // Host "" means the cluster's name
	HTTP2              bool
	Headers            []HeaderOp
	Expected           []IntRange // empty: 200 alone
}

// Endpoints is a ClusterLoadAssignment.
type Endpoints struct {
	Name             string
	Localities       []Locality // by priority, then name; priorities are 0..N without gaps
	Overprovisioning uint32     // percent; never 0; default 140
	WeightedPriority bool       // weighted_priority_health
	DropPermillion   uint32     // drop_overloads, of which there is at most one
}

// Locality is the endpoints of one locality at one priority.
type Locality struct {
	Region, Zone, Subzone string
	Priority              uint32
	Weight                uint32 // 0: none given
	Endpoints             []Endpoint
}

// Health of an endpoint as the control plane says.
type Health uint8

// The states. HealthUnknown counts as healthy.
const (
	HealthUnknown Health = iota
	Healthy
	Unhealthy
	Draining
	TimedOut
	Degraded
)

// Endpoint is one address.
type Endpoint struct {
	Address    netip.AddrPort // invalid only for StrictDNS
	Host       string         // host name to resolve, StrictDNS; with Port
	Port       uint16
	Hostname   string // of the endpoint, for host rewrites and hashing
	Weight     uint32 // never 0; default 1
	Health     Health
	HealthPort uint16 // 0: Address's
	NoChecks   bool   // disable_active_health_check
	// From filter metadata "periplus"; empty if absent.
	Cluster, Network, Workload string
	Gateway                    bool
}
