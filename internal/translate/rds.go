package translate

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// routes is the one route configuration of a sidecar: a virtual host for each HTTP port of each service.
func (v View) routes(s *mesh.Snapshot) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{Name: routeName}
	for name := range s.ServiceNames() {
		ports := slices.DeleteFunc(v.ports(s, name), func(p mesh.ServicePort) bool { return p.Protocol == mesh.TCP })
		for i, port := range ports {
			hosts := v.hosts(name)
			domains := make([]string, 0, 2*len(hosts))
			if i == defaultPort(ports) {
				domains = append(domains, hosts...)
			}
			for _, host := range hosts {
				domains = append(domains, host+":"+portText(port.Port))
			}
			out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{
				Name:    name.Host() + ":" + portText(port.Port),
				Domains: domains,
				Routes:  v.serviceRoutes(s, name, port.Port),
			})
		}
	}
	return out
}

// defaultPort is the index of the port that a host without a port means: 80, or the lowest.
func defaultPort(ports []mesh.ServicePort) int {
	return max(slices.IndexFunc(ports, func(p mesh.ServicePort) bool { return p.Port == 80 }), 0)
}

// hosts are the names of a service, as resolv.conf and KEP-1645 would have them.
func (v View) hosts(n mesh.ServiceName) []string {
	var hosts []string
	if n.Namespace == v.Namespace {
		hosts = append(hosts, n.Name)
	}
	return append(hosts, n.String(), n.String()+".svc", n.Host(), n.String()+"."+mesh.ClustersetDomain)
}

// serviceRoutes are those of the VirtualService in force or, without one, the way to the service itself.
func (v View) serviceRoutes(s *mesh.Snapshot, name mesh.ServiceName, port uint16) []*routev3.Route {
	if policy := v.pick(policies(s).routes[name], name); policy != nil {
		if spec := policy.Spec.(*mesh.VirtualService); len(spec.HTTP) > 0 {
			return v.virtualRoutes(s, spec, Request{Service: name, Port: port})
		}
	}
	self := mesh.HTTPRoute{Destinations: []mesh.Destination{{Host: name}}}
	return []*routev3.Route{v.route(s, &self, nil, Request{Service: name, Port: port})}
}

// virtualRoutes are, in order, one route for each match. What none matches is a 404, as in Istio.
func (v View) virtualRoutes(s *mesh.Snapshot, spec *mesh.VirtualService, r Request) []*routev3.Route {
	var out []*routev3.Route
	for i := range spec.HTTP {
		http := &spec.HTTP[i]
		if len(http.Matches) == 0 {
			return append(out, v.route(s, http, nil, r)) // what follows is out of reach
		}
		for j := range http.Matches {
			if match := &http.Matches[j]; match.Port == 0 || match.Port == r.Port {
				out = append(out, v.route(s, http, match, r))
			}
		}
	}
	return out
}
