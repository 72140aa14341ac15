package translate

import (
	"cmp"
	"iter"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// offers tells whether v may use what a cluster says of a service: its own cluster's always, others' if exported.
// A gateway lets others in, so it serves exactly what its own cluster exports.
func (v View) offers(service *mesh.Service) bool {
	if v.Role == Gateway {
		return service.Cluster == v.Cluster && service.Exported
	}
	return service.Cluster == v.Cluster || service.Exported
}

// offered yields what the clusters say of a service that v may use, its own cluster's word first.
func (v View) offered(s *mesh.Snapshot, name mesh.ServiceName) iter.Seq[*mesh.Service] {
	return func(yield func(*mesh.Service) bool) {
		own := s.Service(name, v.Cluster)
		if own != nil && v.offers(own) && !yield(own) {
			return
		}
		for service := range s.Services(name) {
			if service != own && v.offers(service) && !yield(service) {
				return
			}
		}
	}
}

// Ports are the ports of a service as v sees it, by number: the union over the clusters that offer it. Where two
// clusters disagree about a number, v's own cluster is right, then the first by name. Empty: no such service.
func (v View) Ports(s *mesh.Snapshot, name mesh.ServiceName) []mesh.ServicePort {
	var ports []mesh.ServicePort
	for service := range v.offered(s, name) {
		for _, port := range service.Ports {
			if !slices.ContainsFunc(ports, func(p mesh.ServicePort) bool { return p.Port == port.Port }) {
				ports = append(ports, port)
			}
		}
	}
	slices.SortFunc(ports, func(a, b mesh.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	return ports
}

// Port is one of the ports, or false.
func (v View) Port(s *mesh.Snapshot, r Request) (mesh.ServicePort, bool) {
	for service := range v.offered(s, r.Service) {
		for _, port := range service.Ports {
			if port.Port == r.Port {
				return port, true
			}
		}
	}
	return mesh.ServicePort{}, false
}

// TCPPorts are those of the ports that are not HTTP.
func (v View) TCPPorts(s *mesh.Snapshot, name mesh.ServiceName) []uint16 {
	var ports []uint16
	for _, port := range v.Ports(s, name) {
		if port.Protocol == mesh.TCP {
			ports = append(ports, port.Port)
		}
	}
	return ports
}

// Exists tells whether a resource for r exists for v.
func (v View) Exists(s *mesh.Snapshot, r Request) bool {
	if _, ok := v.Port(s, r); !ok {
		return false
	}
	_, ok := v.subset(s, r)
	return ok
}

// Requests yields every request about a service that has a resource: each port, whole and by subset.
func (v View) Requests(s *mesh.Snapshot, name mesh.ServiceName) iter.Seq[Request] {
	return func(yield func(Request) bool) {
		ports := v.Ports(s, name)
		if len(ports) == 0 {
			return
		}
		subsets := append([]string{""}, v.subsets(s, name)...)
		for _, port := range ports {
			for _, subset := range subsets {
				if !yield(Request{Service: name, Port: port.Port, Subset: subset}) {
					return
				}
			}
		}
	}
}

// identified yields the identity, possibly none, and the labels of everything that the service consists of for v,
// whatever its health: what a proxy may trust must not flap with health.
func (v View) identified(s *mesh.Snapshot, name mesh.ServiceName) iter.Seq2[spiffeid.ID, map[string]string] {
	return func(yield func(spiffeid.ID, map[string]string) bool) {
		for service := range v.offered(s, name) {
			for slice := range slicesOf(s, name, service.Cluster) {
				for i := range slice.Endpoints {
					if !yield(slice.Endpoints[i].Identity, slice.Endpoints[i].Labels) {
						return
					}
				}
			}
			for summary := range summariesOf(s, name, service.Cluster) {
				for _, bucket := range summary.Buckets {
					for _, id := range bucket.Identities {
						if !yield(id, bucket.Labels) {
							return
						}
					}
				}
			}
		}
	}
}

// Authenticated tells whether the service uses mutual TLS: anything in it has an identity.
func (v View) Authenticated(s *mesh.Snapshot, name mesh.ServiceName) bool {
	for id := range v.identified(s, name) {
		if !id.IsZero() {
			return true
		}
	}
	return false
}

// Identities are the SPIFFE IDs that a server of r may have, sorted: those of the subset's endpoints, or the whole
// service's while the subset has none, so that an empty list never means "anybody".
func (v View) Identities(s *mesh.Snapshot, r Request) []string {
	subset, _ := v.subset(s, r)
	all, some := map[string]bool{}, map[string]bool{}
	for id, labels := range v.identified(s, r.Service) {
		if id.IsZero() {
			continue
		}
		all[id.String()] = true
		if Matches(subset.Labels, labels) {
			some[id.String()] = true
		}
	}
	if len(some) == 0 {
		some = all
	}
	return sortedKeys(some)
}

// slicesOf yields one cluster's slices of a service.
func slicesOf(s *mesh.Snapshot, name mesh.ServiceName, c mesh.ClusterID) iter.Seq[*mesh.EndpointSlice] {
	return scan[*mesh.EndpointSlice](s, mesh.EndpointsKey(name, c, ""))
}

// summariesOf yields one cluster's summaries of a service.
func summariesOf(s *mesh.Snapshot, name mesh.ServiceName, c mesh.ClusterID) iter.Seq[*mesh.Summary] {
	prefix := string(mesh.KindSummary) + "/" + name.Namespace + "/" + name.Name + "/" + string(c) + "/"
	return scan[*mesh.Summary](s, mesh.Key(prefix))
}

// gatewaysOf yields one cluster's gateways.
func gatewaysOf(s *mesh.Snapshot, c mesh.ClusterID) iter.Seq[*mesh.Gateway] {
	return scan[*mesh.Gateway](s, mesh.GatewayKey(c, ""))
}

func scan[T mesh.Object](s *mesh.Snapshot, prefix mesh.Key) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, object := range s.Scan(string(prefix)) {
			if !yield(object.(T)) {
				return
			}
		}
	}
}

// Matches tells whether labels have everything that want asks for.
func Matches(want, labels map[string]string) bool {
	for name, value := range want {
		if have, ok := labels[name]; !ok || have != value {
			return false
		}
	}
	return true
}
