package translate

import (
	"iter"
	"maps"
	"slices"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// policyIndex finds policies by the service that they are about. It depends on the policies alone, so it is
// carried from one snapshot to the next while no policy changes (see CarryPolicies).
type policyIndex struct {
	rules  map[mesh.ServiceName][]*mesh.Policy // DestinationRules
	routes map[mesh.ServiceName][]*mesh.Policy // VirtualServices
}

type policyIndexKey struct{}

func policies(s *mesh.Snapshot) *policyIndex {
	return s.Memo(policyIndexKey{}, func() any { return indexPolicies(s) }).(*policyIndex)
}

func indexPolicies(s *mesh.Snapshot) *policyIndex {
	index := &policyIndex{map[mesh.ServiceName][]*mesh.Policy{}, map[mesh.ServiceName][]*mesh.Policy{}}
	for policy := range s.Policies(mesh.KindDestinationRule) {
		if rule, ok := policy.Spec.(*mesh.DestinationRule); ok {
			index.rules[rule.Host] = append(index.rules[rule.Host], policy)
		}
	}
	for policy := range s.Policies(mesh.KindVirtualService) {
		if virtual, ok := policy.Spec.(*mesh.VirtualService); ok {
			for _, host := range virtual.Hosts {
				index.routes[host] = append(index.routes[host], policy)
			}
		}
	}
	return index
}

// CarryPolicies hands the index on to the next snapshot when no policy differs, so that its cost is paid once a policy
// change and not once a snapshot.
func CarryPolicies(old, now *mesh.Snapshot) {
	now.Memo(policyIndexKey{}, func() any { return policies(old) })
}

// inForce yields the policies that hold for v: those of its own namespace, else of the service's, else of the root
// namespace, by name.
func (v View) inForce(candidates []*mesh.Policy, service mesh.ServiceName) iter.Seq[*mesh.Policy] {
	return func(yield func(*mesh.Policy) bool) {
		found := false
		for _, namespace := range [...]string{v.Namespace, service.Namespace, mesh.RootNamespace} {
			for _, policy := range candidates {
				if policy.Namespace != namespace || !policy.AppliesTo(v.Cluster) {
					continue
				}
				if found = true; !yield(policy) {
					return
				}
			}
			if found {
				return
			}
		}
	}
}

// rule is the DestinationRule in force for a service, or nil: one, or what several of one namespace say together.
func (v View) rule(s *mesh.Snapshot, service mesh.ServiceName) *mesh.DestinationRule {
	var rule *mesh.DestinationRule
	for policy := range v.inForce(policies(s).rules[service], service) {
		next := policy.Spec.(*mesh.DestinationRule)
		if rule != nil {
			next = join(rule, next)
		}
		rule = next
	}
	return rule
}

// join is what Istio makes of two rules for one host: the subsets of both, the first's where they share a name, and the
// first's traffic policy unless it has none.
func join(first, second *mesh.DestinationRule) *mesh.DestinationRule {
	out := *first
	if out.Traffic == (mesh.TrafficPolicy{}) && len(out.Ports) == 0 {
		out.Traffic, out.Ports = second.Traffic, second.Ports
	}
	out.Subsets = slices.Clip(out.Subsets)
	for _, subset := range second.Subsets {
		if !slices.ContainsFunc(out.Subsets, func(s mesh.Subset) bool { return s.Name == subset.Name }) {
			out.Subsets = append(out.Subsets, subset)
		}
	}
	return &out
}

// VirtualService is the one in force for a service, or nil; of several in one namespace the first by name.
func (v View) VirtualService(s *mesh.Snapshot, service mesh.ServiceName) *mesh.VirtualService {
	for policy := range v.inForce(policies(s).routes[service], service) {
		return policy.Spec.(*mesh.VirtualService)
	}
	return nil
}

// subset finds what r asks for; the whole service is the subset without labels.
func (v View) subset(s *mesh.Snapshot, r Request) (mesh.Subset, bool) {
	if r.Subset == "" {
		return mesh.Subset{}, true
	}
	for subset := range v.allSubsets(s, r.Service) {
		if subset.Name == r.Subset {
			return subset, true
		}
	}
	return mesh.Subset{}, false
}

// subsets are the names of a service's subsets, each once.
func (v View) subsets(s *mesh.Snapshot, service mesh.ServiceName) []string {
	var names []string
	for subset := range v.allSubsets(s, service) {
		if subset.Name != "" && !slices.Contains(names, subset.Name) {
			names = append(names, subset.Name)
		}
	}
	return names
}

// allSubsets yields the subsets of the rule in force. A gateway does not know the namespace of who comes, so it
// has those of every rule that applies to its cluster, and the first of a name is meant.
func (v View) allSubsets(s *mesh.Snapshot, service mesh.ServiceName) iter.Seq[mesh.Subset] {
	return func(yield func(mesh.Subset) bool) {
		if rule := v.rule(s, service); rule != nil && !yieldAll(rule.Subsets, yield) || v.Role != Gateway {
			return
		}
		for _, policy := range policies(s).rules[service] {
			if policy.AppliesTo(v.Cluster) && !yieldAll(policy.Spec.(*mesh.DestinationRule).Subsets, yield) {
				return
			}
		}
	}
}

func yieldAll[T any](all []T, yield func(T) bool) bool {
	for _, one := range all {
		if !yield(one) {
			return false
		}
	}
	return true
}

// Traffic is the policy for r: the port's settings replace the rule's whole, the subset's replace them part by part.
func (v View) Traffic(s *mesh.Snapshot, r Request) mesh.TrafficPolicy {
	rule := v.rule(s, r.Service)
	if rule == nil {
		return mesh.TrafficPolicy{}
	}
	traffic := rule.Traffic
	if port, ok := rule.Ports[r.Port]; ok {
		traffic = port
	}
	subset, _ := v.subset(s, r)
	return override(traffic, subset.Traffic)
}

func override(base mesh.TrafficPolicy, by *mesh.TrafficPolicy) mesh.TrafficPolicy {
	if by == nil {
		return base
	}
	if by.LoadBalancer != nil {
		base.LoadBalancer = by.LoadBalancer
	}
	if by.ConnectionPool != nil {
		base.ConnectionPool = by.ConnectionPool
	}
	if by.OutlierDetection != nil {
		base.OutlierDetection = by.OutlierDetection
	}
	return base
}

// PanicPercent is Istio's: unhealthy endpoints are sent, so panic is off unless minHealthPercent asks for it.
func PanicPercent(t mesh.TrafficPolicy) uint32 {
	if t.OutlierDetection == nil {
		return 0
	}
	return min(t.OutlierDetection.MinHealthPercent, 100)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
