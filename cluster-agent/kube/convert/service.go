package convert

import (
	"fmt"
	"strings"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// protocols are the values of appProtocol, and the port names or their beginnings, that say what a port speaks: the
// Kubernetes standard ones and Istio's. Whatever else there is, TLS included, is passed on as bytes.
func protocols() map[string]mesh.Protocol {
	return map[string]mesh.Protocol{
		"http": mesh.HTTP, "kubernetes.io/ws": mesh.HTTP, "grpc-web": mesh.HTTP,
		"http2": mesh.HTTP2, "kubernetes.io/h2c": mesh.HTTP2,
		"grpc": mesh.GRPC,
	}
}

// ProtocolOf is what a port speaks: by its appProtocol if it has one that says something, else by its name or what
// stands in it before the first '-', as in Istio.
func ProtocolOf(app, name string) mesh.Protocol {
	known := protocols()
	if app != "" {
		if p, ok := known[strings.ToLower(app)]; ok {
			return p
		}
		name = strings.ToLower(app)
	}
	if p, ok := known[name]; ok {
		return p
	}
	prefix, _, _ := strings.Cut(name, "-")
	if p, ok := known[prefix]; ok {
		return p
	}
	return mesh.TCP
}

// PortName is the mesh's name of a Service's port: Kubernetes lets a Service's only port have none.
func PortName(name string, number uint16) string {
	if name == "" {
		return fmt.Sprintf("port-%d", number)
	}
	return name
}

// service converts a Service, or tells why it is none of the mesh's.
func (c *conversion) service(s *Service) *mesh.Service {
	out := &mesh.Service{Name: mesh.ServiceName{Namespace: s.Namespace, Name: s.Name.Name}, Cluster: c.env.Cluster.ID}
	switch {
	case !c.env.Cluster.AdmitsNamespace(s.Namespace):
		c.reject(NamespaceRefused, "", "cluster %q may not publish in namespace %q, only in %q", c.env.Cluster.ID, s.Namespace, c.env.Cluster.Namespaces)
		return nil
	case s.External:
		c.reject(ExternalName, "", "a Service of type ExternalName has no endpoints")
		return nil
	}
	for _, port := range s.Ports {
		if port.Protocol != "TCP" {
			c.reject(NotTCP, "", "port %d is %s: only TCP is carried", port.Number, port.Protocol)
			continue
		}
		out.Ports = append(out.Ports, mesh.ServicePort{
			Name: PortName(port.Name, port.Number), Port: port.Number, Protocol: ProtocolOf(port.App, port.Name),
		})
	}
	if len(out.Ports) == 0 {
		c.reject(NoPorts, "", "a Service needs a TCP port")
		return nil
	}
	if err := out.Validate(); err != nil {
		c.reject(Invalid, "", "%v", err)
		return nil
	}
	return out
}
