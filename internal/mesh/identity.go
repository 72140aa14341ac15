package mesh

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// The SPIFFE IDs that mean something to the mesh. Who somebody is comes only from the verified certificate.
//
//	spiffe://<cluster's domain>/ns/<namespace>/sa/<account>   a workload
//	spiffe://<cluster's domain>/periplus/agent                the cluster's agent, towards its own proxies
//	spiffe://<cluster's domain>/periplus/gateway              an east-west gateway
//	spiffe://<control plane>/controller/<id>                  a replica of the global controller
//	spiffe://<control plane>/agent/<cluster>                  an agent, towards the controllers
//	spiffe://<control plane>/operator/<name>                  a person or a pipeline

// WorkloadIdentity is what a workload's SPIFFE ID says.
type WorkloadIdentity struct {
	TrustDomain spiffeid.TrustDomain
	Namespace   string
	Account     string
}

// ParseWorkloadIdentity reads spiffe://domain/ns/NAMESPACE/sa/ACCOUNT.
func ParseWorkloadIdentity(id spiffeid.ID) (WorkloadIdentity, error) {
	parts := strings.Split(id.Path(), "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return WorkloadIdentity{}, fmt.Errorf("identity %q is not a workload's: want spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT", id)
	}
	return WorkloadIdentity{id.TrustDomain(), parts[2], parts[4]}, nil
}

// ID is the SPIFFE ID of w.
func (w WorkloadIdentity) ID() (spiffeid.ID, error) {
	return spiffeid.FromSegments(w.TrustDomain, "ns", w.Namespace, "sa", w.Account)
}

// AgentIdentity is the agent of the cluster that owns domain, towards its own proxies.
func AgentIdentity(domain spiffeid.TrustDomain) spiffeid.ID { return fixed(domain, "/periplus/agent") }

// GatewayIdentity is every east-west gateway of the cluster that owns domain.
func GatewayIdentity(domain spiffeid.TrustDomain) spiffeid.ID {
	return fixed(domain, "/periplus/gateway")
}

func fixed(domain spiffeid.TrustDomain, path string) spiffeid.ID {
	id, err := spiffeid.FromPath(domain, path)
	if err != nil {
		panic(fmt.Sprintf("mesh: identity %s%s: %v", domain, path, err))
	}
	return id
}

// PlaneRole is the first path segment of an identity in the control plane's trust domain.
type PlaneRole string

// The roles in the control plane's trust domain.
const (
	RoleController PlaneRole = "controller"
	RoleAgent      PlaneRole = "agent"
	RoleOperator   PlaneRole = "operator"
)

// PlaneIdentity is spiffe://domain/ROLE/NAME.
func PlaneIdentity(domain spiffeid.TrustDomain, role PlaneRole, name string) (spiffeid.ID, error) {
	return spiffeid.FromSegments(domain, string(role), name)
}

// ParsePlaneIdentity reads spiffe://domain/ROLE/NAME; the caller compares the domain.
func ParsePlaneIdentity(id spiffeid.ID) (PlaneRole, string, error) {
	parts := strings.Split(id.Path(), "/")
	if len(parts) == 3 {
		switch role := PlaneRole(parts[1]); role {
		case RoleController, RoleAgent, RoleOperator:
			return role, parts[2], nil
		}
	}
	return "", "", fmt.Errorf("identity %q is not one of the control plane: want /controller/ID, /agent/CLUSTER or /operator/NAME", id)
}
