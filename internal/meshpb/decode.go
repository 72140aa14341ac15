package meshpb

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Unmarshal is that of a new [Decoder].
func Unmarshal(data []byte) (mesh.Object, error) { return new(Decoder).Unmarshal(data) }

// Decode converts and validates. The object shares byte slices and label maps with o, which must not be
// written afterwards.
func Decode(o *pb.Object) (mesh.Object, error) {
	object, err := decode(o)
	if err != nil {
		return nil, err
	}
	if err := object.Validate(); err != nil {
		return nil, err
	}
	return object, nil
}

func decode(o *pb.Object) (mesh.Object, error) {
	switch kind := o.GetKind().(type) {
	case *pb.Object_Cluster:
		return DecodeCluster(kind.Cluster)
	case *pb.Object_Service:
		return decodeService(kind.Service)
	case *pb.Object_EndpointSlice:
		return decodeSlice(kind.EndpointSlice)
	case *pb.Object_Gateway:
		return decodeGateway(kind.Gateway)
	case *pb.Object_Summary:
		return decodeSummary(kind.Summary)
	case *pb.Object_Policy:
		return decodePolicy(kind.Policy)
	case *pb.Object_PolicyRevision:
		return DecodePolicyRevision(kind.PolicyRevision), nil
	case *pb.Object_Federation:
		return decodeFederation(kind.Federation)
	case *pb.Object_JoinToken:
		return decodeJoinToken(kind.JoinToken)
	case *pb.Object_Cursor:
		return DecodeCursor(kind.Cursor), nil
	case *pb.Object_RemovedReplica:
		return &mesh.RemovedReplica{ID: kind.RemovedReplica.GetId(), RemovedAtMillis: kind.RemovedReplica.GetRemovedAtMs()}, nil
	}
	return nil, fmt.Errorf("mesh object: kind missing or unknown")
}

var statesByWire, healthsByWire = invert(clusterStates), invert(healths)

func invert[K, V comparable](m map[K]V) map[V]K {
	out := make(map[V]K, len(m))
	for k, v := range m {
		out[v] = k
	}
	return out
}

// DecodeCluster converts without validating: a registration request may leave fields to defaults. No state
// means active.
func DecodeCluster(c *pb.Cluster) (*mesh.Cluster, error) {
	out := &mesh.Cluster{
		ID: mesh.ClusterID(c.GetId()), Region: c.GetRegion(), Namespaces: c.GetNamespaces(),
		State: statesByWire[c.GetState()], CredentialGeneration: c.GetCredentialGeneration(), RegisteredAtMillis: c.GetRegisteredAtMs(),
	}
	if out.State == "" {
		out.State = mesh.ClusterActive
	}
	var err error
	if c.GetTrustDomain() != "" {
		if out.TrustDomain, err = spiffeid.TrustDomainFromString(c.GetTrustDomain()); err != nil {
			return nil, fmt.Errorf("cluster %q: trust domain %q: %w", c.GetId(), c.GetTrustDomain(), err)
		}
	}
	for _, network := range c.GetNetworks() {
		n := mesh.NetworkRange{Name: mesh.Network(network.GetName())}
		for _, text := range network.GetCidrs() {
			cidr, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("cluster %q: network %q: CIDR %q: %w", c.GetId(), network.GetName(), text, err)
			}
			n.CIDRs = append(n.CIDRs, cidr.Masked())
		}
		out.Networks = append(out.Networks, n)
	}
	return out, nil
}

// DecodeServiceName converts a service name.
func DecodeServiceName(n *pb.ServiceName) mesh.ServiceName {
	return mesh.ServiceName{Namespace: n.GetNamespace(), Name: n.GetName()}
}

// DecodeLocality converts a locality.
func DecodeLocality(l *pb.Locality) mesh.Locality {
	return mesh.Locality{Region: l.GetRegion(), Zone: l.GetZone(), Subzone: l.GetSubzone()}
}

// DecodeHealth converts a health; unspecified means healthy.
func DecodeHealth(h pb.Health) mesh.Health {
	if h == pb.Health_HEALTH_UNSPECIFIED {
		return mesh.Healthy
	}
	return healthsByWire[h]
}

func decodePort(n uint32) (uint16, error) {
	if n == 0 || n > math.MaxUint16 {
		return 0, fmt.Errorf("port %d is outside 1..65535", n)
	}
	return uint16(n), nil
}

func decodeService(s *pb.Service) (*mesh.Service, error) {
	out := &mesh.Service{Name: DecodeServiceName(s.GetName()), Cluster: mesh.ClusterID(s.GetCluster()), Exported: s.GetExported()}
	for _, p := range s.GetPorts() {
		port, err := decodePort(p.GetPort())
		if err != nil {
			return nil, fmt.Errorf("service %q: port %q: %w", out.Name, p.GetName(), err)
		}
		out.Ports = append(out.Ports, mesh.ServicePort{Name: p.GetName(), Port: port, Protocol: mesh.Protocol(p.GetProtocol())})
	}
	return out, nil
}

func decodeSlice(e *pb.EndpointSlice) (*mesh.EndpointSlice, error) {
	out := &mesh.EndpointSlice{
		Service: DecodeServiceName(e.GetService()), Cluster: mesh.ClusterID(e.GetCluster()), Slice: e.GetSlice(),
		Endpoints: make([]mesh.Endpoint, 0, len(e.GetEndpoints())),
	}
	for _, endpoint := range e.GetEndpoints() {
		decoded, err := decodeEndpoint(endpoint)
		if err != nil {
			return nil, fmt.Errorf("service %q: slice %q: endpoint %q: %w", out.Service, out.Slice, endpoint.GetName(), err)
		}
		out.Endpoints = append(out.Endpoints, decoded)
	}
	return out, nil
}

func decodeEndpoint(e *pb.Endpoint) (mesh.Endpoint, error) {
	out := mesh.Endpoint{
		Name: e.GetName(), Network: mesh.Network(e.GetNetwork()), Locality: DecodeLocality(e.GetLocality()),
		Health: DecodeHealth(e.GetHealth()), Weight: max(e.GetWeight(), 1), Labels: e.GetLabels(),
		Ports: make(map[string]uint16, len(e.GetPorts())),
	}
	var err error
	if out.Address, err = netip.ParseAddr(e.GetAddress()); err != nil {
		return out, fmt.Errorf("address %q: %w", e.GetAddress(), err)
	}
	if out.Identity, err = decodeIdentity(e.GetIdentity()); err != nil {
		return out, err
	}
	for name, number := range e.GetPorts() {
		if out.Ports[name], err = decodePort(number); err != nil {
			return out, fmt.Errorf("port %q: %w", name, err)
		}
	}
	return out, nil
}

func decodeIdentity(s string) (spiffeid.ID, error) {
	if s == "" {
		return spiffeid.ID{}, nil
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return id, fmt.Errorf("identity %q: %w", s, err)
	}
	return id, nil
}

func decodeGateway(g *pb.Gateway) (*mesh.Gateway, error) {
	out := &mesh.Gateway{
		Cluster: mesh.ClusterID(g.GetCluster()), Name: g.GetName(), Network: mesh.Network(g.GetNetwork()),
		Locality: DecodeLocality(g.GetLocality()), Health: DecodeHealth(g.GetHealth()),
	}
	var err error
	if out.Address, err = netip.ParseAddr(g.GetAddress()); err != nil {
		return nil, fmt.Errorf("gateway %q: address %q: %w", out.Name, g.GetAddress(), err)
	}
	if out.Port, err = decodePort(g.GetPort()); err != nil {
		return nil, fmt.Errorf("gateway %q: %w", out.Name, err)
	}
	return out, nil
}

func decodeSummary(s *pb.Summary) (*mesh.Summary, error) {
	out := &mesh.Summary{
		Service: DecodeServiceName(s.GetService()), Cluster: mesh.ClusterID(s.GetCluster()),
		Network: mesh.Network(s.GetNetwork()), Locality: DecodeLocality(s.GetLocality()),
	}
	for _, b := range s.GetBuckets() {
		bucket := mesh.SummaryBucket{
			Labels: b.GetLabels(), PortNames: b.GetPortNames(), Total: b.GetTotal(), Healthy: b.GetHealthy(), HealthyWeight: b.GetHealthyWeight(),
		}
		for _, text := range b.GetIdentities() {
			id, err := decodeIdentity(text)
			if err != nil {
				return nil, fmt.Errorf("service %q: summary: %w", out.Service, err)
			}
			bucket.Identities = append(bucket.Identities, id)
		}
		out.Buckets = append(out.Buckets, bucket)
	}
	return out, nil
}

func decodePolicy(p *pb.Policy) (*mesh.Policy, error) {
	out := &mesh.Policy{
		Kind: mesh.PolicyKind(p.GetKind()), Namespace: p.GetNamespace(), Name: p.GetName(), Origin: mesh.ClusterID(p.GetOrigin()),
		Revision: p.GetRevision(), Author: p.GetAuthor(), Digest: p.GetDigest(), Source: p.GetSource(),
	}
	for _, c := range p.GetClusters() {
		out.Clusters = append(out.Clusters, mesh.ClusterID(c))
	}
	var err error
	out.Spec, err = mesh.DecodePolicySpec(out.Kind, p.GetSpec())
	return out, err
}

// DecodePolicyRevision converts an entry of the history.
func DecodePolicyRevision(r *pb.PolicyRevision) *mesh.PolicyRevision {
	return &mesh.PolicyRevision{
		Revision: r.GetRevision(), Kind: mesh.PolicyKind(r.GetKind()), Namespace: r.GetNamespace(), Name: r.GetName(),
		Operation: r.GetOperation(), Author: r.GetAuthor(), AtMillis: r.GetAtMs(), Digest: r.GetDigest(), Chain: r.GetChain(), Source: r.GetSource(),
	}
}

func decodeFederation(f *pb.Federation) (*mesh.Federation, error) {
	domain, err := spiffeid.TrustDomainFromString(f.GetTrustDomain())
	if err != nil {
		return nil, fmt.Errorf("federation %q: %w", f.GetTrustDomain(), err)
	}
	out := &mesh.Federation{
		TrustDomain: domain, Cluster: mesh.ClusterID(f.GetCluster()), Sequence: f.GetSequence(),
		Bundle: f.GetBundle(), Signature: f.GetSignature(), Chain: f.GetChain(), EndpointURL: f.GetEndpointUrl(),
	}
	if id := f.GetEndpointId(); id != "" {
		if out.EndpointID, err = spiffeid.FromString(id); err != nil {
			return nil, fmt.Errorf("federation %q: endpoint: %w", domain.Name(), err)
		}
	}
	return out, nil
}

func decodeJoinToken(t *pb.JoinToken) (*mesh.JoinToken, error) {
	cluster, err := DecodeCluster(t.GetCluster())
	if err != nil {
		return nil, fmt.Errorf("join token: %w", err)
	}
	return &mesh.JoinToken{
		Hash: t.GetHash(), Cluster: *cluster, ExpiresAtMillis: t.GetExpiresAtMs(), UsedAtMillis: t.GetUsedAtMs(), Author: t.GetAuthor(),
		UsedBy: t.GetUsedBy(),
	}, nil
}

// DecodeCursor converts a cursor.
func DecodeCursor(c *pb.Cursor) *mesh.Cursor {
	return &mesh.Cursor{Cluster: mesh.ClusterID(c.GetCluster()), Epoch: c.GetEpoch(), Sequence: c.GetSequence()}
}
