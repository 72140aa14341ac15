package envoy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cmd/internal/dataplane"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
)

// flags are what describes one Envoy, before it is checked.
type flags struct {
	role, name, service, cluster, network, region, zone, subzone string
	bind, socket, admin, agent, trustDomain, controlPlane        string
	outboundPort, port                                           uint16
	tcpOutbound                                                  bool
	inbound, labels, controllers                                 []string
	reopen                                                       time.Duration
}

func (f *flags) add(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.role, "role", string(translate.Sidecar), "sidecar or gateway")
	flags.StringVar(&f.name, "name", "", "name of the workload or gateway, unique in its service and cluster (required)")
	flags.StringVar(&f.service, "service", "", "service of the workload, NAME.NAMESPACE; required for a sidecar")
	flags.StringVar(&f.cluster, "cluster", "", "cluster that it belongs to (required)")
	flags.StringVar(&f.network, "network", "", "network that its address is in (required)")
	flags.StringVar(&f.region, "region", "", "region that it runs in")
	flags.StringVar(&f.zone, "zone", "", "zone that it runs in")
	flags.StringVar(&f.subzone, "subzone", "", "subzone that it runs in")
	flags.StringVar(&f.bind, "bind", "127.0.0.1", "address to listen on, and by which others reach it")
	flags.StringArrayVar(&f.inbound, "inbound", nil, "a port that the workload serves, PORT-NAME:SERVICE-PORT:PROTOCOL:SIDECAR-PORT=HOST:PORT of the application (repeatable)")
	flags.StringArrayVar(&f.labels, "label", nil, "KEY=VALUE label of the workload (repeatable)")
	flags.Uint16Var(&f.port, "port", 15443, "port of a gateway")
	flags.StringVar(&f.socket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIRE agent's socket, which serves the SPIFFE Workload API and SDS")
	flags.StringVar(&f.admin, "admin-address", "127.0.0.1:15000", "host:port of Envoy's admin interface")
	flags.StringVar(&f.agent, "agent", "", "host:port of the cluster's agent (required)")
	flags.StringVar(&f.trustDomain, "trust-domain", "", "SPIFFE trust domain of the cluster (required)")
	for _, name := range []string{"name", "cluster", "network", "agent", "trust-domain"} {
		command.MarkFlagRequired(name)
	}
}

func (f *flags) addBootstrap(command *cobra.Command) {
	flags := command.Flags()
	flags.Uint16Var(&f.outboundPort, "outbound-port", 15001, "port to which the workload sends its HTTP requests, whatever their authority")
	flags.BoolVar(&f.tcpOutbound, "tcp-outbound", false, "also listen at --bind on the port of every TCP service")
	flags.StringArrayVar(&f.controllers, "controller", nil, "host:port of a controller, for when the agent is gone (repeatable)")
	flags.StringVar(&f.controlPlane, "control-plane", "", "SPIFFE trust domain of the controllers")
	flags.DurationVar(&f.reopen, "reopen-every", 5*time.Minute, "how long an xDS stream lasts: what went to a controller returns to the agent within it")
}

// client checks the flags; what an agent would refuse is refused here.
func (f *flags) client() (*envoy.Client, error) {
	c := &envoy.Client{
		Role: translate.Role(f.role), Name: f.name, Service: f.service, Cluster: mesh.ClusterID(f.cluster), Network: mesh.Network(f.network),
		Locality: mesh.Locality{Region: f.region, Zone: f.zone, Subzone: f.subzone}, ReopenEvery: f.reopen,
	}
	var err error
	if c.Admin, err = netip.ParseAddrPort(f.admin); err != nil {
		return nil, fmt.Errorf("--admin-address: %w", err)
	}
	path, ok := strings.CutPrefix(f.socket, "unix://")
	if !ok {
		return nil, fmt.Errorf("--workload-socket %q: want unix:///path", f.socket)
	}
	c.Socket = path
	if err := f.plane(c); err != nil {
		return nil, err
	}
	if c.Workload, err = f.workload(c.Role); err != nil {
		return nil, err
	}
	if _, err := translate.ViewOf(c.Role, c.Cluster, "", c.Node()); err != nil {
		return nil, err
	}
	return c, nil
}

// plane is where xDS is served, and by whom.
func (f *flags) plane(c *envoy.Client) (err error) {
	if c.TrustDomain, err = spiffeid.TrustDomainFromString(f.trustDomain); err != nil {
		return fmt.Errorf("--trust-domain: %w", err)
	}
	if c.Agent, err = hostPort(f.agent); err != nil {
		return fmt.Errorf("--agent: %w", err)
	}
	if len(f.controllers) == 0 {
		return nil
	}
	if c.ControlPlane, err = spiffeid.TrustDomainFromString(f.controlPlane); err != nil {
		return fmt.Errorf("--control-plane: %w; it is needed with --controller", err)
	}
	for _, text := range f.controllers {
		address, err := hostPort(text)
		if err != nil {
			return fmt.Errorf("--controller: %w", err)
		}
		c.Controllers = append(c.Controllers, address)
	}
	return nil
}

func hostPort(text string) (envoy.Address, error) {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return envoy.Address{}, fmt.Errorf("%q: want HOST:PORT", text)
	}
	port, err := strconv.ParseUint(text[i+1:], 10, 16)
	if err != nil || port == 0 {
		return envoy.Address{}, fmt.Errorf("%q: want HOST:PORT", text)
	}
	return envoy.Address{Host: strings.Trim(text[:i], "[]"), Port: uint16(port)}, nil
}

// workload is what node.metadata says.
func (f *flags) workload(role translate.Role) (w translate.Workload, err error) {
	w.Bind = f.bind
	switch role {
	case translate.Gateway:
		w.GatewayPort = f.port
		return w, nil
	case translate.Sidecar:
		if f.service == "" {
			return w, fmt.Errorf("--service: a sidecar needs one")
		}
	default:
		return w, fmt.Errorf("--role %q: want sidecar or gateway", role)
	}
	w.OutboundPort, w.TCPOutbound = f.outboundPort, f.tcpOutbound
	if w.Labels, err = dataplane.ParseLabels(f.labels); err != nil {
		return w, err
	}
	inbound, err := dataplane.ParseInbound(f.service, f.inbound)
	for _, in := range inbound {
		w.Inbound = append(w.Inbound, translate.Inbound{
			Service: in.Service, PortName: in.PortName, ServicePort: in.ServicePort, Protocol: mesh.Protocol(in.Protocol),
			EndpointPort: in.EndpointPort, App: in.App,
		})
	}
	return w, err
}
