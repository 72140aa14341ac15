// Package dataplane is the commands of the data plane, the same in cmd/periplus and in the lean cmd/periplus-proxy.
package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/eastwest"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/proxy"
)

// Sidecar is the command that runs a sidecar.
func Sidecar() *cobra.Command {
	var p process.Logging
	config := proxy.Config{}
	var bind, admin, accessLog string
	var inbound, labels []string
	command := &cobra.Command{
		Use: "proxy", Aliases: []string{"sidecar"}, Short: "Run a sidecar",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.Bind, err = netip.ParseAddr(bind); err != nil {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("--bind: %w", err))
			}
			if config.Inbound, err = ParseInbound(config.Service, inbound); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if config.Labels, err = ParseLabels(labels); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if err := process.Socket("workload-socket", config.WorkloadSocket); err != nil {
				return err
			}
			if config.AdminListener, err = process.Listen("admin-address", admin); err != nil {
				return err
			}
			if accessLog == "-" {
				config.AccessLog = os.Stdout
			}
			config.Log, config.Metrics = log, process.Registry()
			return process.Interrupted(c.Context(), proxy.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&config.Name, "name", "", "name of the workload, unique in its service and cluster (required)")
	flags.StringVar(&config.Service, "service", "", "service of the workload, NAME.NAMESPACE (required)")
	flags.StringVar(&bind, "bind", "127.0.0.1", "address to listen on, and by which other sidecars reach this one")
	flags.Uint16Var(&config.OutboundPort, "outbound-port", 15001, "port to which the workload sends its HTTP requests, whatever their authority")
	flags.BoolVar(&config.TCPOutbound, "tcp-outbound", false, "also listen at --bind on the port of every TCP service")
	flags.StringArrayVar(&inbound, "inbound", nil, "a port that the workload serves, PORT-NAME:SERVICE-PORT:PROTOCOL:SIDECAR-PORT=HOST:PORT of the application (repeatable)")
	flags.StringArrayVar(&labels, "label", nil, "KEY=VALUE label of the workload (repeatable)")
	flags.Uint32Var(&config.Weight, "weight", 1, "share of the requests relative to other endpoints of the locality")
	flags.StringVar(&accessLog, "access-log", "", "'-' writes an access log to standard output")
	flags.StringVar(&config.Subzone, "subzone", "", "subzone that it runs in")
	proxyPlane(command, planeFlags{
		&config.Cluster, &config.Network, &config.Region, &config.Zone, &config.WorkloadSocket, &config.Agent, &config.Controllers,
		&config.ControlPlane, &config.DataDir, &admin, &config.DrainTime,
	})
	return command
}

// planeFlags are the flags that sidecars and gateways share.
type planeFlags struct {
	cluster, network, region, zone, workloadSocket, agent *string
	controllers                                           *[]string
	controlPlane, dataDir, admin                          *string
	drain                                                 *time.Duration
}

func proxyPlane(command *cobra.Command, f planeFlags) {
	flags := command.Flags()
	flags.StringVar(f.cluster, "cluster", "", "cluster that it belongs to (required)")
	flags.StringVar(f.network, "network", "", "network that its address is in (required)")
	flags.StringVar(f.region, "region", "", "region that it runs in")
	flags.StringVar(f.zone, "zone", "", "zone that it runs in")
	flags.StringVar(f.workloadSocket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIFFE Workload API")
	flags.StringVar(f.agent, "agent", "", "host:port of the cluster's agent (required)")
	flags.StringArrayVar(f.controllers, "controller", nil, "host:port of a controller, for when the agent is gone (repeatable, in order)")
	flags.StringVar(f.controlPlane, "control-plane", "", "SPIFFE trust domain of the controllers")
	flags.StringVar(f.dataDir, "data-dir", "", "folder for the last good configuration; '' keeps none")
	flags.StringVar(f.admin, "admin-address", "127.0.0.1:15000", "where the admin interface is served, without TLS")
	flags.DurationVar(f.drain, "drain-time", 10*time.Second, "how long open requests may take when it is told to stop")
	for _, name := range []string{"name", "cluster", "network", "agent"} {
		command.MarkFlagRequired(name)
	}
}

// ParseInbound reads values of --inbound.
func ParseInbound(service string, flags []string) (out []proxy.Inbound, err error) {
	for _, flag := range flags {
		left, app, ok := strings.Cut(flag, "=")
		parts := strings.Split(left, ":")
		if !ok || len(parts) != 4 {
			return nil, fmt.Errorf("--inbound %q: want PORT-NAME:SERVICE-PORT:PROTOCOL:SIDECAR-PORT=HOST:PORT", flag)
		}
		port, err1 := strconv.ParseUint(parts[1], 10, 16)
		endpoint, err2 := strconv.ParseUint(parts[3], 10, 16)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("--inbound %q: %w", flag, err)
		}
		out = append(out, proxy.Inbound{
			Service: service, PortName: parts[0], ServicePort: uint16(port), Protocol: parts[2], EndpointPort: uint16(endpoint), App: app,
		})
	}
	return out, nil
}

// ParseLabels reads values of --label.
func ParseLabels(flags []string) (map[string]string, error) {
	out := map[string]string{}
	for _, flag := range flags {
		key, value, ok := strings.Cut(flag, "=")
		if !ok {
			return nil, fmt.Errorf("--label %q: want KEY=VALUE", flag)
		}
		out[key] = value
	}
	return out, nil
}

// EastWest is the command that runs an east-west gateway.
func EastWest() *cobra.Command {
	var p process.Logging
	config := eastwest.Config{}
	var bind, admin string
	command := &cobra.Command{
		Use: "eastwest", Aliases: []string{"gateway"}, Short: "Run an east-west gateway: it passes other networks' mTLS connections on, by SNI",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.Bind, err = netip.ParseAddr(bind); err != nil {
				return cli.Exit(cli.ExitUsage, fmt.Errorf("--bind: %w", err))
			}
			if err := process.Socket("workload-socket", config.WorkloadSocket); err != nil {
				return err
			}
			if config.AdminListener, err = process.Listen("admin-address", admin); err != nil {
				return err
			}
			config.Log, config.Metrics = log, process.Registry()
			return process.Interrupted(c.Context(), eastwest.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&config.Name, "name", "", "name of the gateway, unique in its cluster (required)")
	flags.StringVar(&bind, "bind", "127.0.0.1", "address to listen on, and by which other networks reach it")
	flags.Uint16Var(&config.Port, "port", 15443, "port to listen on")
	flags.IntVar(&config.MaxConnections, "max-connections", 0, "most connections at once; 0: 20000, or as many as the limit of open files allows")
	proxyPlane(command, planeFlags{
		&config.Cluster, &config.Network, &config.Region, &config.Zone, &config.WorkloadSocket, &config.Agent, &config.Controllers,
		&config.ControlPlane, &config.DataDir, &admin, &config.DrainTime,
	})
	return command
}
