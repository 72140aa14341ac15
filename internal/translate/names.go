package translate

import (
	"strconv"
	"strings"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Request asks for the endpoints of one port of a service, or of a subset of it.
type Request struct {
	Service mesh.ServiceName
	Port    uint16 // the service's port
	Subset  string // empty: all of it
}

// OutboundName is the name of the Envoy cluster, and of its endpoints, that serves r.
func (r Request) OutboundName() string {
	return "outbound|" + strconv.Itoa(int(r.Port)) + "|" + r.Subset + "|" + r.Service.Host()
}

// ServerName is the SNI of connections that serve r, and the name of the gateway's cluster for them. It is the
// format of Istio, so that sni_cluster routes it; no part can contain "_.", hence it is reversible.
func (r Request) ServerName() string {
	return "outbound_." + strconv.Itoa(int(r.Port)) + "_." + r.Subset + "_." + r.Service.Host()
}

func parseOutboundName(name string) (Request, bool) {
	parts := strings.Split(name, "|")
	if len(parts) != 4 || parts[0] != "outbound" {
		return Request{}, false
	}
	r, ok := parseRequest(parts[1], parts[2], parts[3])
	return r, ok && r.OutboundName() == name
}

func parseServerName(name string) (Request, bool) {
	rest, ok := strings.CutPrefix(name, "outbound_.")
	port, rest, found := strings.Cut(rest, "_.")
	last := strings.LastIndex(rest, "_.")
	if !ok || !found || last < 0 {
		return Request{}, false
	}
	r, ok := parseRequest(port, rest[:last], rest[last+2:])
	return r, ok && r.ServerName() == name
}

func parseRequest(port, subset, host string) (Request, bool) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Request{}, false
	}
	service, err := mesh.ParseServiceName(host)
	return Request{Service: service, Port: uint16(number), Subset: subset}, err == nil
}

// RequestName is the name of r's cluster in a proxy of v's role.
func (v View) RequestName(r Request) string {
	if v.Role == Gateway {
		return r.ServerName()
	}
	return r.OutboundName()
}

func (v View) ParseRequestName(name string) (Request, bool) {
	if v.Role == Gateway {
		return parseServerName(name)
	}
	return parseOutboundName(name)
}
