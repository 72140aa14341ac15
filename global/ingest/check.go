package ingest

import (
	"fmt"
	"time"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust/continuity"
)

// Reason is why an object was rejected: a closed set, used as a metric's label.
type Reason string

// The reasons.
const (
	Malformed Reason = "malformed" // the object alone is nonsense
	Kind      Reason = "kind"      // not a kind that an agent reports
	Foreign   Reason = "cluster"   // another cluster's
	Namespace Reason = "namespace"
	Network   Reason = "network" // network or address
	Region    Reason = "region"
	Identity  Reason = "identity"
	Bundle    Reason = "bundle" // continuity
	Quota     Reason = "quota"
)

// Rejected says why an object may not be reported.
type Rejected struct {
	Reason Reason
	Err    error
}

func (r *Rejected) Error() string { return string(r.Reason) + ": " + r.Err.Error() }
func (r *Rejected) Unwrap() error { return r.Err }

func reject(reason Reason, format string, args ...any) *Rejected {
	return &Rejected{reason, fmt.Errorf(format, args...)}
}

// Check says why cluster c's agent may not report object, or nil. It is pure; the object has been validated alone.
// Held is the bundle that the mesh has of the object's trust domain, for a Federation.
func Check(c *mesh.Cluster, object mesh.Object, held *mesh.Federation, now time.Time) *Rejected {
	switch o := object.(type) {
	case *mesh.Service:
		return first(own(c, o.Cluster), namespace(c, o.Name.Namespace))
	case *mesh.EndpointSlice:
		if refused := first(own(c, o.Cluster), namespace(c, o.Service.Namespace)); refused != nil {
			return refused
		}
		for i := range o.Endpoints {
			if refused := endpoint(c, &o.Endpoints[i]); refused != nil {
				return refused
			}
		}
		return nil
	case *mesh.Gateway:
		if refused := first(own(c, o.Cluster), region(c, o.Locality)); refused != nil {
			return refused
		}
		if err := c.Admits(o.Network, o.Address); err != nil {
			return &Rejected{Network, err}
		}
		return nil
	case *mesh.Federation:
		return federation(c, o, held, now)
	}
	return reject(Kind, "%s objects are not reported by agents", object.Key().Kind())
}

// CheckDelete says why cluster c's agent may not delete key, or nil.
func CheckDelete(c *mesh.Cluster, key mesh.Key) *Rejected {
	switch key.Kind() {
	case mesh.KindService, mesh.KindEndpoints, mesh.KindGateway:
	default:
		return reject(Kind, "%s objects are not deleted by agents", key.Kind())
	}
	id, ok := key.Cluster()
	if !ok {
		return reject(Malformed, "key %q names no cluster", key)
	}
	return own(c, id)
}

func first(refused ...*Rejected) *Rejected {
	for _, r := range refused {
		if r != nil {
			return r
		}
	}
	return nil
}

func own(c *mesh.Cluster, id mesh.ClusterID) *Rejected {
	if id != c.ID {
		return reject(Foreign, "it belongs to cluster %q, the agent to %q", id, c.ID)
	}
	return nil
}

func namespace(c *mesh.Cluster, name string) *Rejected {
	if !c.AdmitsNamespace(name) {
		return reject(Namespace, "cluster %q may not publish services in namespace %q", c.ID, name)
	}
	return nil
}

// region allows an unknown locality.
func region(c *mesh.Cluster, l mesh.Locality) *Rejected {
	if l.Region != "" && l.Region != c.Region {
		return reject(Region, "region %q is not %q, where cluster %q is registered", l.Region, c.Region, c.ID)
	}
	return nil
}

func endpoint(c *mesh.Cluster, e *mesh.Endpoint) *Rejected {
	if err := c.Admits(e.Network, e.Address); err != nil {
		return reject(Network, "endpoint %q: %w", e.Name, err)
	}
	if refused := region(c, e.Locality); refused != nil {
		return reject(Region, "endpoint %q: %w", e.Name, refused.Err)
	}
	if !e.Identity.IsZero() && e.Identity.TrustDomain() != c.TrustDomain {
		return reject(Identity, "endpoint %q: identity %q is not of trust domain %q", e.Name, e.Identity, c.TrustDomain.Name())
	}
	return nil
}

func federation(c *mesh.Cluster, f, held *mesh.Federation, now time.Time) *Rejected {
	if refused := own(c, f.Cluster); refused != nil {
		return refused
	}
	if f.TrustDomain != c.TrustDomain {
		return reject(Identity, "trust domain %q is not %q of cluster %q", f.TrustDomain.Name(), c.TrustDomain.Name(), c.ID)
	}
	var bundle []byte
	if held != nil {
		bundle = held.Bundle
	}
	_, err := continuity.Verify(bundle, continuity.Proof{
		TrustDomain: f.TrustDomain, Sequence: f.Sequence, Bundle: f.Bundle, Signature: f.Signature, Chain: f.Chain,
	}, now)
	if err != nil {
		return &Rejected{Bundle, err}
	}
	return nil
}
