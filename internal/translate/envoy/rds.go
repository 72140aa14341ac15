package envoy

import (
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// RouteName is the one route configuration of a sidecar.
const RouteName = "outbound"

// Routes are a sidecar's routes: a virtual host for each HTTP port of each service.
func Routes(s *mesh.Snapshot, v translate.View) *routev3.RouteConfiguration {
	r := router{s, v}
	out := &routev3.RouteConfiguration{Name: RouteName}
	for name := range s.ServiceNames() {
		ports := slices.DeleteFunc(v.Ports(s, name), func(p mesh.ServicePort) bool { return p.Protocol == mesh.TCP })
		for i, port := range ports {
			hosts := hosts(v, name)
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
				Routes:  r.service(name, port.Port),
				// x-envoy-attempt-count: applications and their logs tell a retry from a first try.
				IncludeRequestAttemptCount: true,
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
func hosts(v translate.View, n mesh.ServiceName) []string {
	var hosts []string
	if n.Namespace == v.Namespace {
		hosts = append(hosts, n.Name)
	}
	return append(hosts, n.String(), n.String()+".svc", n.Host(), n.String()+"."+mesh.ClustersetDomain)
}

// service are those of the VirtualService in force or, without one, the way to the service itself.
func (r router) service(name mesh.ServiceName, port uint16) []*routev3.Route {
	if spec := r.v.VirtualService(r.s, name); spec != nil && len(spec.HTTP) > 0 {
		return r.virtual(spec, translate.Request{Service: name, Port: port})
	}
	self := mesh.HTTPRoute{Destinations: []mesh.Destination{{Host: name}}}
	return r.entries(&self, nil, translate.Request{Service: name, Port: port})
}

// virtual are, in order, the entries for each match. What none matches is a 404, as in Istio.
func (r router) virtual(spec *mesh.VirtualService, to translate.Request) []*routev3.Route {
	var out []*routev3.Route
	for i := range spec.HTTP {
		http := &spec.HTTP[i]
		if len(http.Matches) == 0 {
			return append(out, r.entries(http, nil, to)...) // what follows is out of reach
		}
		for j := range http.Matches {
			if match := &http.Matches[j]; match.Port == 0 || match.Port == to.Port {
				out = append(out, r.entries(http, match, to)...)
			}
		}
	}
	return out
}
