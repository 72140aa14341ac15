package convert

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// placed is an endpoint on its way: which slice it will stand in, and the place that it was found in.
type placed struct {
	mesh.Endpoint
	slice string
}

// endpoints are the mesh slices of a Service.
func (c *conversion) endpoints(record *Service, service *mesh.Service) []mesh.Object {
	all := c.state.slices[record.Name]
	family := preferred(record, all)
	var found []placed
	seen := map[netip.Addr]bool{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		slice := all[name]
		switch {
		case slice.Family != IPv4 && slice.Family != IPv6:
			c.reject(NotAnAddress, name, "addresses of type %s are not used", slice.Family)
			continue
		case slice.Family != family:
			if len(slice.Endpoints) > 0 {
				c.reject(OtherFamily, name, "%s is not used: the Service has %s endpoints, which it prefers", slice.Family, family)
			}
			continue
		}
		ports := portsOf(service, record, slice)
		if len(ports) == 0 {
			continue // of ports that are not the mesh's
		}
		for i := range slice.Endpoints {
			found = c.endpoint(found, seen, slice, &slice.Endpoints[i], ports)
		}
	}
	return c.slices(service, found)
}

// preferred is the first family of the Service that any of its slices has an endpoint of. An endpoint is one address
// of a workload: with both, each workload of a dual-stack Service would count twice.
func preferred(s *Service, all map[string]*Slice) Family {
	has := map[Family]bool{}
	for _, slice := range all {
		has[slice.Family] = has[slice.Family] || len(slice.Endpoints) > 0
	}
	for _, family := range append(slices.Clone(s.Families), IPv4, IPv6) {
		if has[family] {
			return family
		}
	}
	return IPv4
}

// portsOf are the ports of service that slice serves.
func portsOf(service *mesh.Service, record *Service, slice *Slice) map[string]uint16 {
	out := make(map[string]uint16, len(slice.Ports))
	for _, port := range record.Ports {
		number, ok := slice.Ports[port.Name]
		name := PortName(port.Name, port.Number)
		if ok && number > 0 && slices.ContainsFunc(service.Ports, func(p mesh.ServicePort) bool { return p.Name == name }) {
			out[name] = number
		}
	}
	return out
}

// endpoint adds e to found, or to the one that is the same, or tells why not.
func (c *conversion) endpoint(found []placed, seen map[netip.Addr]bool, slice *Slice, e *Endpoint, ports map[string]uint16) []placed {
	out := placed{slice: slice.Name.Name, Endpoint: mesh.Endpoint{
		Name: e.Pod, Address: e.Address, Ports: ports, Health: healthOf(e), Weight: 1, Locality: c.locality(slice, e),
	}}
	var pod *Pod
	if e.Pod != "" {
		if pod = c.state.pods[Name{slice.Namespace, e.Pod}]; pod == nil {
			c.reject(PodUnknown, what(slice, e), "pod %q is not there, or not yet", e.Pod)
			return found
		}
		out.Labels = pod.Labels
	} else {
		out.Name = addressName(e.Address)
	}
	var err error
	if out.Network, err = c.network(pod, e.Address); err != nil {
		c.reject(NetworkRefused, what(slice, e), "%v: register the cluster with the CIDRs of its pods, or label the pods with their network", err)
		return found
	}
	if out.Identity, err = c.identity(pod); err != nil {
		c.reject(Invalid, what(slice, e), "%v", err)
		return found
	}
	if seen[e.Address] {
		for i := range found {
			if found[i].merge(&out) {
				return found
			}
		}
	}
	seen[e.Address] = true
	return append(found, out)
}

// what names an endpoint for people.
func what(slice *Slice, e *Endpoint) string { return slice.Name.Name + "/" + e.Address.String() }

// healthOf follows the API's rules for absent conditions, which the reader of the slice has applied. Ready wins over
// terminating: the two come together only where the Service publishes addresses whatever their state.
func healthOf(e *Endpoint) mesh.Health {
	switch {
	case e.Ready:
		return mesh.Healthy
	case e.Terminating:
		return mesh.Draining
	}
	return mesh.Unhealthy
}

// merge takes o into p if they are the same endpoint: of the same address, and no port name with two numbers. During
// a move from one slice to another an endpoint is in both; the better health of the two counts.
func (p *placed) merge(o *placed) bool {
	if p.Address != o.Address {
		return false
	}
	for name, number := range o.Ports {
		if held, ok := p.Ports[name]; ok && held != number {
			return false
		}
	}
	if !maps.Equal(p.Ports, o.Ports) {
		p.Ports = maps.Clone(p.Ports)
		maps.Copy(p.Ports, o.Ports)
	}
	if rank(o.Health) < rank(p.Health) {
		p.Health = o.Health
	}
	return true
}

func rank(h mesh.Health) int {
	return slices.Index([]mesh.Health{mesh.Healthy, mesh.Draining, mesh.Unhealthy}, h)
}

// locality is the node's, within the region that the cluster is registered in: a cluster is in one region, and
// controllers take no other from it. What the node calls the region is for people.
func (c *conversion) locality(slice *Slice, e *Endpoint) mesh.Locality {
	out := mesh.Locality{Region: c.env.Cluster.Region, Zone: e.Zone}
	if node := c.state.nodes[c.state.nodeOf(slice, e)]; node != nil && node.Zone != "" {
		out.Zone, out.Subzone = node.Zone, node.Subzone
	}
	if _, err := mesh.ParseLocality(out.String()); err != nil {
		return mesh.Locality{Region: c.env.Cluster.Region}
	}
	return out
}

// network is what the pod's label says, else the cluster's only one, else the one with the narrowest CIDR around the
// address. The address must lie in it.
func (c *conversion) network(pod *Pod, address netip.Addr) (mesh.Network, error) {
	networks := c.env.Cluster.Networks
	name := networks[0].Name
	if pod != nil && pod.Network != "" {
		name = mesh.Network(pod.Network)
	} else if len(networks) > 1 {
		bits := -1
		for _, network := range networks {
			for _, cidr := range network.CIDRs {
				if cidr.Contains(address) && cidr.Bits() > bits {
					name, bits = network.Name, cidr.Bits()
				}
			}
		}
		if bits < 0 {
			return "", fmt.Errorf("address %s is outside the CIDRs of all networks of cluster %q", address, c.env.Cluster.ID)
		}
	}
	return name, c.env.Cluster.Admits(name, address)
}

func (c *conversion) identity(pod *Pod) (spiffeid.ID, error) {
	if pod == nil || !pod.Sidecar {
		return spiffeid.ID{}, nil
	}
	account := cmp.Or(pod.Account, "default")
	if account == c.account { // as it mostly is: a Service's pods are of one account
		return c.id, nil
	}
	id, err := mesh.WorkloadIdentity{TrustDomain: c.env.Cluster.TrustDomain, Namespace: pod.Namespace, Account: account}.ID()
	if err == nil {
		c.account, c.id = account, id
	}
	return id, err
}

// addressName is the name of an endpoint that stands for no pod.
func addressName(a netip.Addr) string {
	return strings.NewReplacer(":", "-", ".", "-").Replace(a.String())
}

// slices puts the endpoints into the mesh's slices: those that announced themselves under their own names, in place
// of what they announced, the others as they are in Kubernetes.
func (c *conversion) slices(service *mesh.Service, found []placed) (out []mesh.Object) {
	var announced map[netip.Addr]Announced
	if c.env.Announced != nil {
		announced = c.env.Announced(service.Name)
	}
	by := map[string][]mesh.Endpoint{}
	names := map[string]bool{}
	for _, a := range announced {
		names[a.Endpoint.Name] = true
	}
	for i := range found {
		e, slice := found[i].Endpoint, SliceName(found[i].slice)
		if a, ok := announced[e.Address]; ok {
			if by[a.Slice] == nil {
				by[a.Slice] = []mesh.Endpoint{join(e, a.Endpoint)}
				c.comparePorts(service, found[i].slice, &e, &a.Endpoint)
			}
			continue
		}
		if names[e.Name] {
			e.Name = fmt.Sprintf("%s-%d", addressName(e.Address), lowest(e.Ports))
		}
		if names[e.Name] {
			c.reject(Invalid, found[i].slice+"/"+e.Address.String(), "another endpoint is named %q already", e.Name)
			continue
		}
		names[e.Name] = true
		by[slice] = append(by[slice], e)
	}
	for name, endpoints := range by {
		slices.SortFunc(endpoints, func(a, b mesh.Endpoint) int { return strings.Compare(a.Name, b.Name) })
		slice := &mesh.EndpointSlice{Service: service.Name, Cluster: service.Cluster, Slice: name, Endpoints: endpoints}
		if err := slice.Validate(); err != nil {
			c.reject(Invalid, name, "%v", err)
			continue
		}
		out = append(out, slice)
	}
	return out
}

// comparePorts tells of a sidecar that names none of its ports as the Service does: nobody will find it.
func (c *conversion) comparePorts(service *mesh.Service, slice string, e, announced *mesh.Endpoint) {
	if slices.ContainsFunc(service.Ports, func(p mesh.ServicePort) bool { return announced.Ports[p.Name] != 0 }) {
		return
	}
	c.reject(OtherPorts, slice+"/"+e.Address.String(), "sidecar %q serves the ports %q, and the Service has none of them: give the sidecar's inbound port the name of the Service's",
		announced.Name, slices.Sorted(maps.Keys(announced.Ports)))
}

func lowest(ports map[string]uint16) uint16 { return slices.Min(slices.Collect(maps.Values(ports))) }

// SliceName is the mesh's name of an EndpointSlice. No sidecar has a name that begins with an underscore, so none of
// its names is one of these.
func SliceName(name string) string { return "_" + name[:min(len(name), 252)] }

// Joined tells whether a mesh slice that [State.Convert] made stands in place of what a sidecar announced.
func Joined(slice string) bool { return !strings.HasPrefix(slice, "_") }

// join is one endpoint out of what Kubernetes and what its sidecar say. The sidecar knows where it listens, who it is
// and whether its application answers; Kubernetes knows whether the pod shall have requests, and where it is.
func join(k, announced mesh.Endpoint) mesh.Endpoint {
	out := announced
	if rank(k.Health) > rank(mesh.Healthy) && out.Health == mesh.Healthy || k.Health == mesh.Draining {
		out.Health = k.Health
	}
	if k.Locality.Zone != "" {
		out.Locality = k.Locality
	}
	if len(k.Labels) > 0 {
		out.Labels = maps.Clone(k.Labels)
		maps.Copy(out.Labels, announced.Labels)
	}
	return out
}
