package mesh

import (
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Object is one value of the mesh state. It is not written after it is committed.
type Object interface {
	Key() Key
	// Validate checks everything that the object alone can tell; errors name the field.
	Validate() error
}

// ClusterState says whether a cluster's endpoints take traffic from elsewhere.
type ClusterState string

// The states. Drained keeps the cluster's endpoints out of every assignment, its own clients' included,
// unless nothing else is left.
const (
	ClusterActive  ClusterState = "active"
	ClusterDrained ClusterState = "drained"
)

// Cluster is a registered cluster: a decision, made by people.
type Cluster struct {
	ID          ClusterID
	Region      string
	Networks    []NetworkRange // at least one
	TrustDomain spiffeid.TrustDomain
	Namespaces  []string // it may publish services in; empty allows all
	State       ClusterState
	// CredentialGeneration rises when the agent's credentials are revoked; older ones are refused.
	CredentialGeneration uint64
	RegisteredAtMillis   int64 // for people; never compared
}

// NetworkRange is a network and the addresses that its endpoints may have.
type NetworkRange struct {
	Name  Network
	CIDRs []netip.Prefix
}

// Protocol of a service port.
type Protocol string

// The protocols. HTTP2 is cleartext HTTP/2 with prior knowledge on the application's side; GRPC is HTTP2.
const (
	HTTP  Protocol = "http"
	HTTP2 Protocol = "http2"
	GRPC  Protocol = "grpc"
	TCP   Protocol = "tcp"
)

// ServicePort is one port of a service.
type ServicePort struct {
	Name     string // unique in the service
	Port     uint16
	Protocol Protocol
}

// Service is what one cluster says of a service. The mesh's service is the union over clusters.
type Service struct {
	Name     ServiceName
	Cluster  ClusterID
	Ports    []ServicePort
	Exported bool // other clusters may use this cluster's endpoints
}

// Health of an endpoint or gateway.
type Health string

// The healths. Draining endpoints take no new requests but finish what they have.
const (
	Healthy   Health = "healthy"
	Unhealthy Health = "unhealthy"
	Draining  Health = "draining"
)

// Endpoint is one address of one service in one cluster.
type Endpoint struct {
	Name     string // unique in the service and cluster
	Address  netip.Addr
	Ports    map[string]uint16 // service port name -> port at Address
	Network  Network
	Locality Locality
	Health   Health
	Weight   uint32 // 1..65535
	Labels   map[string]string
	Identity spiffeid.ID // zero: no mTLS; then it is reachable inside its own network only
}

// EndpointSlice is the unit of change: some endpoints of one service in one cluster.
type EndpointSlice struct {
	Service   ServiceName
	Cluster   ClusterID
	Slice     string
	Endpoints []Endpoint
}

// Gateway is one east-west gateway: where a network is entered from others.
type Gateway struct {
	Cluster  ClusterID
	Name     string
	Network  Network
	Address  netip.Addr
	Port     uint16
	Locality Locality
	Health   Health
}

// Summary is what another network needs to know of a service's endpoints in one cluster, network and locality:
// their number and weight, not their addresses, so that churn inside does not travel unless the counts change.
type Summary struct {
	Service  ServiceName
	Cluster  ClusterID
	Network  Network
	Locality Locality
	Buckets  []SummaryBucket // ordered, one for each distinct set of labels and ports
}

// SummaryBucket counts endpoints that have the same labels and ports. Endpoints without an identity do not
// count: they cannot be reached across networks.
type SummaryBucket struct {
	Labels        map[string]string
	Identities    []spiffeid.ID // sorted, distinct
	PortNames     []string      // sorted
	Total         uint32        // not draining
	Healthy       uint32
	HealthyWeight uint32 // sum over healthy endpoints
}

// Federation is a trust domain's bundle as its owner published it.
type Federation struct {
	TrustDomain spiffeid.TrustDomain
	Cluster     ClusterID
	Sequence    uint64 // spiffe_sequence (SPIFFE Trust Domain and Bundle, 4.1.1)
	Bundle      []byte // JWKS
	Signature   []byte // continuity proof, see package trust
	Chain       [][]byte
	// EndpointURL is the domain's bundle endpoint, profile https_spiffe, which answers as EndpointID; "": none. It is
	// not signed: nobody without a key of the domain can answer there.
	EndpointURL string
	EndpointID  spiffeid.ID
}

// JoinToken is a registration token, known by the hash of its secret only.
type JoinToken struct {
	Hash            string // hex SHA-256
	Cluster         Cluster
	ExpiresAtMillis int64
	UsedAtMillis    int64 // 0: not used
	Author          string
	UsedBy          string // hex SHA-256 of the public key that it was used with; empty: not used
}

// Cursor is the newest report accepted from a cluster's agent. Older never replaces newer.
type Cursor struct {
	Cluster         ClusterID
	Epoch, Sequence uint64
}

// Newer tells whether c is after o.
func (c Cursor) Newer(o Cursor) bool {
	return c.Epoch > o.Epoch || c.Epoch == o.Epoch && c.Sequence > o.Sequence
}

// PolicyRevision is one entry of the history: every change of every policy, in a hash chain.
type PolicyRevision struct {
	Revision        uint64 // 1, 2, 3, ...
	Kind            PolicyKind
	Namespace, Name string
	Operation       string // apply, delete
	Author          string // SPIFFE ID from the verified certificate
	AtMillis        int64
	Digest          string // hex SHA-256 of Source
	Chain           string // hex SHA-256 over the previous Chain and this entry
	Source          []byte
}

// RemovedReplica is a replica of the global controller that left. Names are not used again, so it stays for ever: who
// knows an older state may know fewer of them, never one that is a member again.
type RemovedReplica struct {
	ID              string // an RFC 1123 label
	RemovedAtMillis int64
}

// Key of each kind.

func (c *Cluster) Key() Key        { return ClusterKey(c.ID) }
func (s *Service) Key() Key        { return ServiceKey(s.Name, s.Cluster) }
func (e *EndpointSlice) Key() Key  { return EndpointsKey(e.Service, e.Cluster, e.Slice) }
func (g *Gateway) Key() Key        { return GatewayKey(g.Cluster, g.Name) }
func (p *Policy) Key() Key         { return PolicyKey(p.Kind, p.Namespace, p.Name) }
func (r *PolicyRevision) Key() Key { return PolicyRevisionKey(r.Revision) }
func (f *Federation) Key() Key     { return FederationKey(f.TrustDomain.Name()) }
func (t *JoinToken) Key() Key      { return JoinTokenKey(t.Hash) }
func (c *Cursor) Key() Key         { return CursorKey(c.Cluster) }
func (r *RemovedReplica) Key() Key { return RemovedReplicaKey(r.ID) }
func (s *Summary) Key() Key {
	l := s.Locality
	return join(KindSummary, s.Service.Namespace, s.Service.Name, string(s.Cluster), string(s.Network), l.Region, l.Zone, l.Subzone)
}
