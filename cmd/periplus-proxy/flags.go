package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/eastwest"
	"github.com/periplus-mesh/periplus/proxy"
)

// shared are the flags of both commands.
type shared struct {
	name, cluster, network, region, zone string
	bind, socket, agent, plane           string
	controllers                          list
	dataDir, admin, logLevel, logFormat  string
	drain                                time.Duration
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

func (s *shared) flags(f *flag.FlagSet) {
	f.StringVar(&s.name, "name", "", "name of the endpoint, unique in its service and cluster (required)")
	f.StringVar(&s.cluster, "cluster", "", "cluster that it belongs to (required)")
	f.StringVar(&s.network, "network", "", "network that its address is in")
	f.StringVar(&s.region, "region", "", "region that it runs in")
	f.StringVar(&s.zone, "zone", "", "zone that it runs in")
	f.StringVar(&s.bind, "bind", "127.0.0.1", "address to listen on, and to be reached at")
	f.StringVar(&s.socket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIFFE Workload API")
	f.StringVar(&s.agent, "agent", "", "host:port of the cluster's agent")
	f.StringVar(&s.plane, "control-plane", "", "SPIFFE trust domain of the controllers")
	f.Var(&s.controllers, "controller", "host:port of a controller, for when the agent is gone (repeatable, in order)")
	f.StringVar(&s.dataDir, "data-dir", "", "folder for the last good configuration; '' keeps none")
	f.StringVar(&s.admin, "admin-address", "127.0.0.1:15000", "admin interface, without TLS; '' is none")
	f.StringVar(&s.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
	f.DurationVar(&s.drain, "drain-time", 30*time.Second, "how long open requests may take when it is told to stop")
}

// parse reads the flags of a command, and the address to bind.
func (s *shared) parse(f *flag.FlagSet, args []string) (netip.Addr, error) {
	if err := f.Parse(args); err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.NArg() > 0 {
		return netip.Addr{}, fmt.Errorf("%w: unexpected argument %q", errUsage, f.Arg(0))
	}
	bind, err := netip.ParseAddr(s.bind)
	if err != nil {
		return bind, fmt.Errorf("%w: -bind: %w", errUsage, err)
	}
	return bind, nil
}

func runSidecar(ctx context.Context, args []string, stderr io.Writer) error {
	var s shared
	var c proxy.Config
	var inbound, labels list
	var outbound, weight uint
	var accessLog string
	f := flag.NewFlagSet("sidecar", flag.ContinueOnError)
	f.SetOutput(stderr)
	s.flags(f)
	f.StringVar(&c.Service, "service", "", "service of the workload, NAME.NAMESPACE (required)")
	f.UintVar(&outbound, "outbound-port", 15001, "port for the workload's HTTP requests, whatever their authority")
	f.BoolVar(&c.TCPOutbound, "tcp-outbound", false, "also listen at -bind on the port of every TCP service")
	f.Var(&inbound, "inbound", "PORT-NAME:SERVICE-PORT:PROTOCOL:SIDECAR-PORT=HOST:PORT of the application (repeatable)")
	f.Var(&labels, "label", "KEY=VALUE label of the workload (repeatable)")
	f.UintVar(&weight, "weight", 1, "share of requests relative to other endpoints of the locality")
	f.StringVar(&c.Subzone, "subzone", "", "subzone that it runs in")
	f.StringVar(&c.HealthPath, "health-path", "", "path that tells the application's health; '': a connection is enough")
	f.StringVar(&accessLog, "access-log", "", "'-' writes an access log to standard output as text, 'json' as JSON")
	var err error
	if c.Bind, err = s.parse(f, args); err != nil {
		return err
	}
	if outbound > 65535 || weight > 1<<31 {
		return fmt.Errorf("%w: -outbound-port or -weight is out of range", errUsage)
	}
	if c.Inbound, err = parseInbound(c.Service, inbound); err != nil {
		return err
	}
	if c.Labels, err = parseLabels(labels); err != nil {
		return err
	}
	if accessLog != "" {
		c.AccessLog, c.AccessLogJSON = os.Stdout, accessLog == "json"
	}
	c.Name, c.Cluster, c.Network, c.Region, c.Zone = s.name, s.cluster, s.network, s.region, s.zone
	c.WorkloadSocket, c.Agent, c.Controllers, c.ControlPlane = s.socket, s.agent, s.controllers, s.plane
	c.DataDir, c.DrainTime, c.OutboundPort, c.Weight = s.dataDir, s.drain, uint16(outbound), uint32(weight)
	if c.Log, c.LogLevel, err = logger(s.logLevel, s.logFormat); err != nil {
		return err
	}
	if c.AdminListener, err = listen(s.admin); err != nil {
		return err
	}
	c.Metrics = registry()
	return proxy.Run(ctx, c)
}

func runGateway(ctx context.Context, args []string, stderr io.Writer) error {
	var s shared
	var c eastwest.Config
	var port uint
	f := flag.NewFlagSet("eastwest", flag.ContinueOnError)
	f.SetOutput(stderr)
	s.flags(f)
	f.UintVar(&port, "port", 15443, "port to listen on")
	f.IntVar(&c.MaxConnections, "max-connections", 0, "most connections at once; 0: the default")
	var err error
	if c.Bind, err = s.parse(f, args); err != nil {
		return err
	}
	if port > 65535 {
		return fmt.Errorf("%w: -port %d is out of range", errUsage, port)
	}
	c.Name, c.Cluster, c.Network, c.Region, c.Zone, c.Port = s.name, s.cluster, s.network, s.region, s.zone, uint16(port)
	c.WorkloadSocket, c.Agent, c.Controllers, c.ControlPlane = s.socket, s.agent, s.controllers, s.plane
	c.DataDir, c.DrainTime, c.Metrics = s.dataDir, s.drain, registry()
	if c.Log, _, err = logger(s.logLevel, s.logFormat); err != nil {
		return err
	}
	if c.AdminListener, err = listen(s.admin); err != nil {
		return err
	}
	return eastwest.Run(ctx, c)
}

func parseInbound(service string, flags []string) (out []proxy.Inbound, err error) {
	for _, value := range flags {
		left, app, ok := strings.Cut(value, "=")
		parts := strings.Split(left, ":")
		if !ok || len(parts) != 4 {
			return nil, fmt.Errorf("%w: -inbound %q: want PORT-NAME:SERVICE-PORT:PROTOCOL:SIDECAR-PORT=HOST:PORT", errUsage, value)
		}
		port, err1 := strconv.ParseUint(parts[1], 10, 16)
		endpoint, err2 := strconv.ParseUint(parts[3], 10, 16)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%w: -inbound %q: ports are numbers up to 65535", errUsage, value)
		}
		out = append(out, proxy.Inbound{
			Service: service, PortName: parts[0], ServicePort: uint16(port), Protocol: parts[2], EndpointPort: uint16(endpoint), App: app,
		})
	}
	return out, nil
}

func parseLabels(flags []string) (map[string]string, error) {
	out := map[string]string{}
	for _, value := range flags {
		key, label, ok := strings.Cut(value, "=")
		if !ok {
			return nil, fmt.Errorf("%w: -label %q: want KEY=VALUE", errUsage, value)
		}
		out[key] = label
	}
	return out, nil
}
