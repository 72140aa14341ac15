package demo

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/demo"
)

// Command is "periplus demo".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "demo", Short: "The shop of 'periplus up' and its visitors"}
	command.AddCommand(shop(), traffic())
	return command
}

func shop() *cobra.Command {
	config := demo.ShopConfig{}
	var services, grpc, echo []string
	command := &cobra.Command{
		Use: "shop", Short: "Serve services of the shop", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, flag := range services {
				name, rest, ok := strings.Cut(flag, "=")
				address, upstream, _ := strings.Cut(rest, "=")
				next, proxy, hasProxy := strings.Cut(upstream, "@")
				if !ok || (upstream != "") != hasProxy {
					return cli.Exit(cli.ExitUsage, fmt.Errorf("--service %q: want NAME=ADDRESS[=NEXT@PROXY]", flag))
				}
				listener, err := process.Listen("service", address)
				if err != nil {
					return err
				}
				config.Services = append(config.Services, demo.Service{Name: name, Listener: listener, Next: next, Proxy: proxy})
			}
			if err := morePorts("grpc", grpc, config.Services, func(s *demo.Service) *net.Listener { return &s.GRPC }); err != nil {
				return err
			}
			if err := morePorts("echo", echo, config.Services, func(s *demo.Service) *net.Listener { return &s.Echo }); err != nil {
				return err
			}
			return process.Interrupted(c.Context(), demo.RunShop(c.Context(), config))
		},
	}
	flags := command.Flags()
	flags.StringVar(&config.Cluster, "cluster", "", "cluster that the answers name")
	flags.StringVar(&config.Region, "region", "", "region that the answers name")
	flags.StringVar(&config.Zone, "zone", "", "zone that the answers name")
	flags.StringArrayVar(&services, "service", nil, "NAME=ADDRESS[=NEXT@PROXY]: a service, and whom it asks through which proxy (repeatable)")
	flags.StringArrayVar(&grpc, "grpc", nil, "NAME=ADDRESS: the service also answers gRPC, the standard health service (repeatable)")
	flags.StringArrayVar(&echo, "echo", nil, "NAME=ADDRESS: the service also echoes TCP connections (repeatable)")
	return command
}

// morePorts opens what a flag says, NAME=ADDRESS, for the service of that name.
func morePorts(flag string, values []string, services []demo.Service, port func(*demo.Service) *net.Listener) error {
	for _, value := range values {
		name, address, _ := strings.Cut(value, "=")
		i := slices.IndexFunc(services, func(s demo.Service) bool { return s.Name == name })
		if i < 0 || address == "" {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--%s %q: want NAME=ADDRESS, NAME being one of --service", flag, value))
		}
		listener, err := process.Listen(flag, address)
		if err != nil {
			return err
		}
		*port(&services[i]) = listener
	}
	return nil
}

func traffic() *cobra.Command {
	config := demo.TrafficConfig{}
	var visitors []string
	var address string
	command := &cobra.Command{
		Use: "traffic", Short: "Send requests, and tell how they went at /stats", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for _, flag := range visitors {
				locality, proxy, ok := strings.Cut(flag, "=")
				region, zone, _ := strings.Cut(locality, "/")
				if !ok {
					return cli.Exit(cli.ExitUsage, fmt.Errorf("--visitor %q: want REGION/ZONE=PROXY", flag))
				}
				config.Visitors = append(config.Visitors, demo.Visitor{Region: region, Zone: zone, Proxy: proxy})
			}
			var err error
			if config.Listener, err = process.Listen("address", address); err != nil {
				return err
			}
			return process.Interrupted(c.Context(), demo.RunTraffic(c.Context(), config))
		},
	}
	flags := command.Flags()
	flags.StringArrayVar(&visitors, "visitor", nil, "REGION/ZONE=PROXY: where requests come from, and the sidecar they go through (repeatable)")
	flags.StringVar(&config.Service, "service", "storefront.shop", "service to ask")
	flags.Float64Var(&config.PerSecond, "rate", 10, "requests per second of each visitor")
	flags.StringVar(&address, "address", "127.0.0.1:8090", "where /stats is served")
	return command
}
