package mesh

import (
	"encoding/json"
	"fmt"
	"time"
)

// PolicyKind is the Kubernetes kind that a policy was written in.
type PolicyKind string

// The kinds that the mesh knows.
const (
	KindDestinationRule     PolicyKind = "DestinationRule"
	KindVirtualService      PolicyKind = "VirtualService"
	KindAuthorizationPolicy PolicyKind = "AuthorizationPolicy"
)

// Policy is one policy in force.
type Policy struct {
	Kind            PolicyKind
	Namespace, Name string
	Clusters        []ClusterID // it applies to; empty: all
	Origin          ClusterID   // whose API server it came from, and is confined to; empty: the global API
	Revision        uint64
	Author          string
	Digest          string // hex SHA-256 of Source
	Source          []byte // the document as it was given
	Spec            PolicySpec
}

// AppliesTo tells whether p is in force in c.
func (p *Policy) AppliesTo(c ClusterID) bool {
	if p.Origin != "" && p.Origin != c {
		return false
	}
	for _, id := range p.Clusters {
		if id == c {
			return true
		}
	}
	return len(p.Clusters) == 0
}

// PolicySpec is the meaning of a policy, in the mesh's own types: *DestinationRule, *VirtualService or
// *AuthorizationPolicy. It is stored as JSON.
type PolicySpec interface {
	validate() error
}

// NewPolicySpec returns an empty spec of kind, or nil if the mesh does not know it.
func NewPolicySpec(kind PolicyKind) PolicySpec {
	switch kind {
	case KindDestinationRule:
		return new(DestinationRule)
	case KindVirtualService:
		return new(VirtualService)
	case KindAuthorizationPolicy:
		return new(AuthorizationPolicy)
	}
	return nil
}

// DecodePolicySpec reads what json.Marshal made of a spec. Unknown and absent fields are tolerated: a newer or
// older replica may have written it.
func DecodePolicySpec(kind PolicyKind, data []byte) (PolicySpec, error) {
	spec := NewPolicySpec(kind)
	if spec == nil {
		return nil, fmt.Errorf("policy kind %q is not known", kind)
	}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("policy kind %q: %w", kind, err)
	}
	return spec, nil
}

// DestinationRule is Istio's networking.istio.io/v1 DestinationRule.
type DestinationRule struct {
	Host    ServiceName
	Traffic TrafficPolicy
	Ports   map[uint16]TrafficPolicy `json:",omitempty"` // portLevelSettings; replaces Traffic whole for the port
	Subsets []Subset                 `json:",omitempty"`
}

// Subset is a named part of a service's endpoints.
type Subset struct {
	Name    string
	Labels  map[string]string
	Traffic *TrafficPolicy `json:",omitempty"` // nil: the rule's
}

// TrafficPolicy says how to reach a destination. Nil parts take defaults.
type TrafficPolicy struct {
	LoadBalancer     *LoadBalancer     `json:",omitempty"`
	ConnectionPool   *ConnectionPool   `json:",omitempty"`
	OutlierDetection *OutlierDetection `json:",omitempty"`
}

// LoadBalancerAlgorithm chooses among the endpoints of one locality.
type LoadBalancerAlgorithm string

// The algorithms. LeastRequest is the default (two random choices).
const (
	LeastRequest LoadBalancerAlgorithm = "LEAST_REQUEST"
	RoundRobin   LoadBalancerAlgorithm = "ROUND_ROBIN"
	Random       LoadBalancerAlgorithm = "RANDOM"
	RingHash     LoadBalancerAlgorithm = "RING_HASH"
	Maglev       LoadBalancerAlgorithm = "MAGLEV"
)

// LoadBalancer is Istio's LoadBalancerSettings.
type LoadBalancer struct {
	Algorithm LoadBalancerAlgorithm `json:",omitempty"`
	// HashOn is set for RingHash and Maglev.
	HashOn          *HashKey         `json:",omitempty"`
	MinimumRingSize uint64           `json:",omitempty"` // 0: 1024
	Locality        *LocalityBalance `json:",omitempty"` // nil: defaults, failover by distance
}

// HashKey is where the hash of a request comes from; exactly one is set.
type HashKey struct {
	Header   string `json:",omitempty"`
	Cookie   string `json:",omitempty"`
	Query    string `json:",omitempty"`
	SourceIP bool   `json:",omitempty"`
}

// LocalityBalance is Istio's LocalityLoadBalancerSetting.
type LocalityBalance struct {
	Disabled         bool             `json:",omitempty"`
	Failover         []RegionFailover `json:",omitempty"`
	FailoverPriority []string         `json:",omitempty"` // label or label=value, most wanted first
	Distribute       []Distribute     `json:",omitempty"`
}

// RegionFailover sends a region's overflow to another.
type RegionFailover struct{ From, To string }

// Distribute spreads a locality's requests over others by explicit weights.
type Distribute struct {
	From string            // region/zone/subzone, '*' for any
	To   map[string]uint32 // locality -> percent; they sum to 100
}

// ConnectionPool is Istio's ConnectionPoolSettings. 0 means no limit beyond Envoy's defaults.
type ConnectionPool struct {
	MaxConnections           uint32        `json:",omitempty"`
	ConnectTimeout           time.Duration `json:",omitempty"` // 0: 10 s
	IdleTimeout              time.Duration `json:",omitempty"` // 0: 1 h
	MaxPendingRequests       uint32        `json:",omitempty"` // http1MaxPendingRequests
	MaxRequests              uint32        `json:",omitempty"` // http2MaxRequests
	MaxRequestsPerConnection uint32        `json:",omitempty"`
	MaxRetries               uint32        `json:",omitempty"`
}

// OutlierDetection is Istio's OutlierDetection; zero fields take Envoy's defaults.
type OutlierDetection struct {
	Consecutive5xx           uint32        `json:",omitempty"` // 0: 5
	ConsecutiveGatewayErrors uint32        `json:",omitempty"` // 0: off
	Interval                 time.Duration `json:",omitempty"` // 0: 10 s
	BaseEjectionTime         time.Duration `json:",omitempty"` // 0: 30 s
	MaxEjectionPercent       uint32        `json:",omitempty"` // 0: 10
	MinHealthPercent         uint32        `json:",omitempty"`
}

// VirtualService is Istio's networking.istio.io/v1 VirtualService, for mesh traffic.
type VirtualService struct {
	Hosts []ServiceName
	HTTP  []HTTPRoute
}

// HTTPRoute applies to a request if any of its matches does, or if it has none. First route wins.
type HTTPRoute struct {
	Name            string        `json:",omitempty"`
	Matches         []HTTPMatch   `json:",omitempty"`
	Destinations    []Destination // weights sum to > 0; one entry may have weight 0 and then means 100
	Timeout         time.Duration `json:",omitempty"` // 0: none
	Retries         *Retries      `json:",omitempty"` // nil: the default policy
	RewriteURI      string        `json:",omitempty"` // replaces the matched prefix or exact path
	RewriteHost     string        `json:",omitempty"`
	RequestHeaders  HeaderChanges
	ResponseHeaders HeaderChanges
}

// HTTPMatch holds when all that is set holds.
type HTTPMatch struct {
	Path       *StringMatch `json:",omitempty"`
	IgnoreCase bool         `json:",omitempty"` // of the path
	Method     *StringMatch `json:",omitempty"`
	Authority  *StringMatch `json:",omitempty"`
	// Headers by lower-case name; nil means present. WithoutHeaders must not match.
	Headers        map[string]*StringMatch `json:",omitempty"`
	WithoutHeaders map[string]*StringMatch `json:",omitempty"`
	QueryParams    map[string]*StringMatch `json:",omitempty"`
	Port           uint16                  `json:",omitempty"`
}

// StringMatch has exactly one field set. Regex is RE2 and matches the whole string.
type StringMatch struct {
	Exact  *string `json:",omitempty"`
	Prefix *string `json:",omitempty"`
	Suffix *string `json:",omitempty"` // AuthorizationPolicy only
	Regex  *string `json:",omitempty"`
}

// Destination is where a share of a route goes.
type Destination struct {
	Host            ServiceName
	Port            uint16 `json:",omitempty"` // 0: the port that the request came for
	Subset          string `json:",omitempty"`
	Weight          uint32 `json:",omitempty"`
	RequestHeaders  HeaderChanges
	ResponseHeaders HeaderChanges
}

// Retries is Istio's HTTPRetry.
type Retries struct {
	Attempts      uint32        // retries after the first try; 0: no retries
	PerTryTimeout time.Duration `json:",omitempty"` // 0: the route's timeout
	On            string        `json:",omitempty"` // Envoy's retry_on; empty: connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes
}

// HeaderChanges are applied in the order remove, set, add.
type HeaderChanges struct {
	Set    map[string]string `json:",omitempty"`
	Add    map[string]string `json:",omitempty"`
	Remove []string          `json:",omitempty"`
}

// AuthorizationPolicy is Istio's security.istio.io/v1 AuthorizationPolicy. Its namespace is the policy's; in
// [RootNamespace] it applies to every namespace.
type AuthorizationPolicy struct {
	Selector map[string]string `json:",omitempty"` // workload labels; empty: every workload of the namespace
	Action   AuthorizationAction
	Rules    []AuthorizationRule `json:",omitempty"` // none: ALLOW allows nothing, DENY denies nothing
}

// RootNamespace is where policies for every namespace live (Istio's root namespace).
const RootNamespace = "istio-system"

// AuthorizationAction is what a matching rule means.
type AuthorizationAction string

// The actions. DENY is evaluated before ALLOW; if any ALLOW policy selects a workload, one must match.
const (
	Allow AuthorizationAction = "ALLOW"
	Deny  AuthorizationAction = "DENY"
)

// AuthorizationRule matches when one source and one operation match; an empty list matches everything.
type AuthorizationRule struct {
	From []AuthorizationSource    `json:",omitempty"`
	To   []AuthorizationOperation `json:",omitempty"`
}

// AuthorizationSource matches when every list that is set has a match, and no Not list has. Values may be exact,
// "prefix*", "*suffix" or "*" (present). Principals are SPIFFE IDs without "spiffe://", trust domain included.
type AuthorizationSource struct {
	Principals, NotPrincipals     []string `json:",omitempty"`
	Namespaces, NotNamespaces     []string `json:",omitempty"`
	TrustDomains, NotTrustDomains []string `json:",omitempty"`
}

// AuthorizationOperation is as [AuthorizationSource], of the request.
type AuthorizationOperation struct {
	Hosts, NotHosts     []string `json:",omitempty"`
	Ports, NotPorts     []string `json:",omitempty"`
	Methods, NotMethods []string `json:",omitempty"`
	Paths, NotPaths     []string `json:",omitempty"`
}
