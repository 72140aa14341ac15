package meshpb

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// DigestBytes is the length of a digest: enough that two versions of one object never meet by accident.
const DigestBytes = 8

// Marshal encodes deterministically: equal objects give equal bytes.
func Marshal(o mesh.Object) []byte {
	data, err := Append(nil, o)
	if err != nil {
		panic(fmt.Sprintf("meshpb: marshal %s: %v", o.Key(), err)) // only invalid UTF-8 gets here, and Validate refuses it
	}
	return data
}

// Append appends what [Marshal] returns. It fails only if o is not valid.
func Append(b []byte, o mesh.Object) ([]byte, error) {
	if slice, ok := o.(*mesh.EndpointSlice); ok {
		return appendSlice(b, slice), nil
	}
	return proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, Encode(o))
}

// Digest identifies the content of an object.
func Digest(o mesh.Object) [DigestBytes]byte { return DigestOf(Marshal(o)) }

// DigestOf is the digest of an object that is already marshalled.
func DigestOf(marshalled []byte) [DigestBytes]byte {
	sum := sha256.Sum256(marshalled)
	return [DigestBytes]byte(sum[:DigestBytes])
}

// Encode converts any mesh object. It panics on a kind that the wire does not have.
func Encode(o mesh.Object) *pb.Object {
	switch o := o.(type) {
	case *mesh.Cluster:
		return &pb.Object{Kind: &pb.Object_Cluster{Cluster: EncodeCluster(o)}}
	case *mesh.Service:
		return &pb.Object{Kind: &pb.Object_Service{Service: encodeService(o)}}
	case *mesh.EndpointSlice:
		return &pb.Object{Kind: &pb.Object_EndpointSlice{EndpointSlice: encodeSlice(o)}}
	case *mesh.Gateway:
		return &pb.Object{Kind: &pb.Object_Gateway{Gateway: encodeGateway(o)}}
	case *mesh.Summary:
		return &pb.Object{Kind: &pb.Object_Summary{Summary: encodeSummary(o)}}
	case *mesh.Policy:
		return &pb.Object{Kind: &pb.Object_Policy{Policy: EncodePolicy(o)}}
	case *mesh.PolicyRevision:
		return &pb.Object{Kind: &pb.Object_PolicyRevision{PolicyRevision: EncodePolicyRevision(o)}}
	case *mesh.Federation:
		return &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{
			TrustDomain: o.TrustDomain.Name(), Cluster: string(o.Cluster), Sequence: o.Sequence,
			Bundle: o.Bundle, Signature: o.Signature, Chain: o.Chain, EndpointUrl: o.EndpointURL, EndpointId: o.EndpointID.String(),
		}}}
	case *mesh.JoinToken:
		return &pb.Object{Kind: &pb.Object_JoinToken{JoinToken: &pb.JoinToken{
			Hash: o.Hash, Cluster: EncodeCluster(&o.Cluster), ExpiresAtMs: o.ExpiresAtMillis,
			UsedAtMs: o.UsedAtMillis, Author: o.Author, UsedBy: o.UsedBy,
		}}}
	case *mesh.Cursor:
		return &pb.Object{Kind: &pb.Object_Cursor{Cursor: &pb.Cursor{
			Cluster: string(o.Cluster), Epoch: o.Epoch, Sequence: o.Sequence,
		}}}
	case *mesh.RemovedReplica:
		return &pb.Object{Kind: &pb.Object_RemovedReplica{RemovedReplica: &pb.RemovedReplica{Id: o.ID, RemovedAtMs: o.RemovedAtMillis}}}
	}
	panic(fmt.Sprintf("meshpb: no wire form for %T", o))
}

var clusterStates = map[mesh.ClusterState]pb.ClusterState{
	mesh.ClusterActive:  pb.ClusterState_CLUSTER_STATE_ACTIVE,
	mesh.ClusterDrained: pb.ClusterState_CLUSTER_STATE_DRAINED,
}

// EncodeCluster converts a cluster.
func EncodeCluster(c *mesh.Cluster) *pb.Cluster {
	out := &pb.Cluster{
		Id: string(c.ID), Region: c.Region, TrustDomain: c.TrustDomain.Name(), Namespaces: c.Namespaces,
		State: clusterStates[c.State], CredentialGeneration: c.CredentialGeneration, RegisteredAtMs: c.RegisteredAtMillis,
	}
	for _, network := range c.Networks {
		n := &pb.Network{Name: string(network.Name)}
		for _, cidr := range network.CIDRs {
			n.Cidrs = append(n.Cidrs, cidr.String())
		}
		out.Networks = append(out.Networks, n)
	}
	return out
}

// EncodeServiceName converts a service name.
func EncodeServiceName(n mesh.ServiceName) *pb.ServiceName {
	return &pb.ServiceName{Namespace: n.Namespace, Name: n.Name}
}

// EncodeLocality converts a locality.
func EncodeLocality(l mesh.Locality) *pb.Locality {
	return &pb.Locality{Region: l.Region, Zone: l.Zone, Subzone: l.Subzone}
}

func encodeService(s *mesh.Service) *pb.Service {
	out := &pb.Service{Name: EncodeServiceName(s.Name), Cluster: string(s.Cluster), Exported: s.Exported}
	for _, p := range s.Ports {
		out.Ports = append(out.Ports, &pb.ServicePort{Name: p.Name, Port: uint32(p.Port), Protocol: string(p.Protocol)})
	}
	return out
}

var healths = map[mesh.Health]pb.Health{
	mesh.Healthy:   pb.Health_HEALTH_HEALTHY,
	mesh.Unhealthy: pb.Health_HEALTH_UNHEALTHY,
	mesh.Draining:  pb.Health_HEALTH_DRAINING,
}

// EncodeHealth converts a health.
func EncodeHealth(h mesh.Health) pb.Health { return healths[h] }

func encodeSlice(e *mesh.EndpointSlice) *pb.EndpointSlice {
	out := &pb.EndpointSlice{Service: EncodeServiceName(e.Service), Cluster: string(e.Cluster), Slice: e.Slice}
	for i := range e.Endpoints {
		endpoint := &e.Endpoints[i]
		ports := make(map[string]uint32, len(endpoint.Ports))
		for name, port := range endpoint.Ports {
			ports[name] = uint32(port)
		}
		out.Endpoints = append(out.Endpoints, &pb.Endpoint{
			Name: endpoint.Name, Address: endpoint.Address.String(), Ports: ports, Network: string(endpoint.Network),
			Locality: EncodeLocality(endpoint.Locality), Health: healths[endpoint.Health], Weight: endpoint.Weight,
			Labels: endpoint.Labels, Identity: identity(endpoint.Identity),
		})
	}
	return out
}

func identity(id spiffeid.ID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func encodeGateway(g *mesh.Gateway) *pb.Gateway {
	return &pb.Gateway{
		Cluster: string(g.Cluster), Name: g.Name, Network: string(g.Network), Address: g.Address.String(),
		Port: uint32(g.Port), Locality: EncodeLocality(g.Locality), Health: healths[g.Health],
	}
}

func encodeSummary(s *mesh.Summary) *pb.Summary {
	out := &pb.Summary{
		Service: EncodeServiceName(s.Service), Cluster: string(s.Cluster), Network: string(s.Network),
		Locality: EncodeLocality(s.Locality),
	}
	for _, b := range s.Buckets {
		bucket := &pb.SummaryBucket{
			Labels: b.Labels, PortNames: b.PortNames, Total: b.Total, Healthy: b.Healthy, HealthyWeight: b.HealthyWeight,
		}
		for _, id := range b.Identities {
			bucket.Identities = append(bucket.Identities, identity(id))
		}
		out.Buckets = append(out.Buckets, bucket)
	}
	return out
}

// EncodePolicy converts a policy; its spec becomes JSON.
func EncodePolicy(p *mesh.Policy) *pb.Policy {
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		panic(fmt.Sprintf("meshpb: policy %s: %v", p.Key(), err)) // specs are plain data
	}
	out := &pb.Policy{
		Kind: string(p.Kind), Namespace: p.Namespace, Name: p.Name, Origin: string(p.Origin), Revision: p.Revision,
		Author: p.Author, Digest: p.Digest, Source: p.Source, Spec: spec,
	}
	for _, c := range p.Clusters {
		out.Clusters = append(out.Clusters, string(c))
	}
	return out
}

// EncodePolicyRevision converts an entry of the history.
func EncodePolicyRevision(r *mesh.PolicyRevision) *pb.PolicyRevision {
	return &pb.PolicyRevision{
		Revision: r.Revision, Kind: string(r.Kind), Namespace: r.Namespace, Name: r.Name, Operation: r.Operation,
		Author: r.Author, AtMs: r.AtMillis, Digest: r.Digest, Chain: r.Chain, Source: r.Source,
	}
}
