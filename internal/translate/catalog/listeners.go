package catalog

import (
	"cmp"
	"slices"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/xds"
)

func (c *Catalog) listenerNames(s *mesh.Snapshot) []string {
	w := c.workload
	if c.role() == translate.Gateway {
		if w.GatewayPort == 0 {
			return nil
		}
		return []string{envoy.GatewayListener}
	}
	var names []string
	if w.OutboundPort != 0 {
		names = append(names, envoy.HTTPListener)
	}
	for i := range w.Inbound {
		names = append(names, envoy.InboundListener(w.Inbound[i]))
	}
	if w.TCPOutbound {
		for _, port := range sortedPorts(c.tcpServices(s)) {
			if !takes(&w, port) {
				names = append(names, envoy.TCPListener(port))
			}
		}
	}
	return names
}

func sortedPorts(m map[uint16]translate.Request) []uint16 {
	var ports []uint16
	for port := range m {
		ports = append(ports, port)
	}
	slices.SortFunc(ports, cmp.Compare)
	return ports
}

// takes tells whether the workload itself listens on a port.
func takes(w *translate.Workload, port uint16) bool {
	return port == w.OutboundPort || slices.ContainsFunc(w.Inbound, func(in translate.Inbound) bool { return in.EndpointPort == port })
}

// listener finds who makes a listener; nil: it does not exist.
func (c *Catalog) listener(s *mesh.Snapshot, name string) func() []byte {
	w := c.workload
	if c.role() == translate.Gateway {
		if name == envoy.GatewayListener && w.GatewayPort != 0 {
			return func() []byte { return xds.Marshal(envoy.Eastwest(w)) }
		}
		return nil
	}
	if name == envoy.HTTPListener && w.OutboundPort != 0 {
		return func() []byte { return xds.Marshal(envoy.OutboundHTTP(w)) }
	}
	for i := range w.Inbound {
		if in := w.Inbound[i]; envoy.InboundListener(in) == name {
			return func() []byte { return xds.Marshal(envoy.Inbound(s, c.own.view(), w, in)) }
		}
	}
	if r, port, ok := c.tcpListener(s, name); ok {
		return func() []byte { return xds.Marshal(envoy.OutboundTCP(w.Bind, port, r)) }
	}
	return nil
}

func (c *Catalog) tcpListener(s *mesh.Snapshot, name string) (translate.Request, uint16, bool) {
	port, ok := envoy.ParseTCPListener(name)
	if !ok || !c.workload.TCPOutbound || takes(&c.workload, port) {
		return translate.Request{}, 0, false
	}
	r, ok := c.tcpServices(s)[port]
	return r, port, ok
}

type tcpServicesKey struct{ part }

// tcpServices says whose a TCP port number is: there is one listener a number, so the first service wins, those of
// the client's namespace before others.
func (c *Catalog) tcpServices(s *mesh.Snapshot) map[uint16]translate.Request {
	return s.Memo(tcpServicesKey{c.routes}, func() any {
		v, owners := c.routes.view(), map[uint16]translate.Request{}
		for name := range s.ServiceNames() {
			for _, port := range v.TCPPorts(s, name) {
				have, taken := owners[port]
				if !taken || have.Service.Namespace != v.Namespace && name.Namespace == v.Namespace {
					owners[port] = translate.Request{Service: name, Port: port}
				}
			}
		}
		return owners
	}).(map[uint16]translate.Request)
}
