package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func explainCommand() *cobra.Command {
	var from, namespace, subset string
	var port uint32
	command := &cobra.Command{
		Use:   "explain --from CLUSTER[/ZONE] SERVICE",
		Short: "Say where a request would go from here, and why",
		Long: `Prints every endpoint that a client in CLUSTER/ZONE has for SERVICE, in order of preference, with its share of the
requests and the reason for its place; and every endpoint that it does not get, with the reason for that. It is the
very function that the sidecars' endpoints are made with.`,
		Example: "  periplus explain --from eu-west/eu-west-a catalog.shop",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: serviceNames,
	}
	output := command.Flags().StringP("output", "o", "table", "how to print: table, json, yaml")
	command.Flags().StringVar(&from, "from", "", "where the client is, CLUSTER or CLUSTER/ZONE (required)")
	command.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the client (default: the service's)")
	command.Flags().StringVar(&subset, "subset", "", "subset of a DestinationRule")
	command.Flags().Uint32Var(&port, "port", 0, "port of the service (default: its first)")
	command.MarkFlagRequired("from")
	command.RegisterFlagCompletionFunc("from", clusterNames)
	command.RunE = func(c *cobra.Command, args []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		cluster, zone, _ := strings.Cut(from, "/")
		response, err := client.Mesh.Explain(c.Context(), connect.NewRequest(&pb.ExplainRequest{
			FromCluster: cluster, FromZone: zone, Service: args[0], Port: port, Subset: subset, FromNamespace: namespace,
		}))
		if err != nil {
			return err
		}
		if *output == "table" {
			printExplanation(c.OutOrStdout(), response.Msg)
			return nil
		}
		list := cli.List{Kind: "Explanation", Rows: []cli.Row{{Name: args[0], Item: response.Msg}}}
		return list.Print(c.OutOrStdout(), *output)
	}
	return command
}

func printExplanation(w io.Writer, r *pb.ExplainResponse) {
	fmt.Fprintf(w, "From %s to %s port %d, at revision %d:\n", r.GetFrom(), r.GetService(), r.GetPort(), r.GetRevision())
	for _, rule := range r.GetRules() {
		fmt.Fprintf(w, "  rule: %s\n", cli.Printable(rule))
	}
	for _, level := range r.GetLevels() {
		fmt.Fprintf(w, "\nPriority %d gets %.1f%% of the requests\n", level.GetPriority(), 100*level.GetShare())
		for _, e := range level.GetEndpoints() {
			fmt.Fprintf(w, "  %5.1f%%  %s\n", 100*e.GetShare(), endpointLine(e))
		}
	}
	if len(r.GetLevels()) == 0 {
		fmt.Fprintln(w, "\nNo endpoint: requests fail with 503.")
	}
	if len(r.GetDropped()) > 0 {
		fmt.Fprintln(w, "\nNot used")
	}
	for _, e := range r.GetDropped() {
		fmt.Fprintf(w, "          %s\n", endpointLine(e))
	}
}

func endpointLine(e *pb.ExplainedEndpoint) string {
	locality := strings.TrimRight(strings.Join([]string{e.GetLocality().GetRegion(), e.GetLocality().GetZone(), e.GetLocality().GetSubzone()}, "/"), "/")
	stands := ""
	if e.GetStandsFor() > 1 {
		stands = fmt.Sprintf(", for %d endpoints", e.GetStandsFor())
	}
	health := strings.ToLower(strings.TrimPrefix(e.GetHealth().String(), "HEALTH_"))
	return cli.Printable(fmt.Sprintf("%-28s %-22s %-10s %s weight %d, %s%s: %s",
		e.GetName(), e.GetAddress(), e.GetCluster(), locality, e.GetWeight(), health, stands, e.GetReason()))
}

func servicesCommand() *cobra.Command {
	command := &cobra.Command{Use: "services", Aliases: []string{"service"}, Short: "List the services of the mesh", Args: cobra.NoArgs}
	output := outputFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Mesh.ListServices(c.Context(), connect.NewRequest(&pb.ListServicesRequest{}))
		if err != nil {
			return err
		}
		list := cli.List{Kind: "Service", Columns: []cli.Column{{Title: "SERVICE"}, {Title: "ENDPOINTS"}, {Title: "CLUSTERS"}}}
		for _, s := range response.Msg.GetItems() {
			var healthy, total uint32
			var clusters []string
			for _, c := range s.GetClusters() {
				healthy, total = healthy+c.GetHealthyEndpoints(), total+c.GetEndpoints()
				name := c.GetCluster()
				if !c.GetExported() {
					name += " (not exported)"
				}
				clusters = append(clusters, name)
			}
			name := s.GetName().GetName() + "." + s.GetName().GetNamespace()
			list.Rows = append(list.Rows, cli.Row{Name: name, Item: s, Cells: []string{name, fmt.Sprintf("%d/%d", healthy, total), strings.Join(clusters, ", ")}})
		}
		return list.Print(c.OutOrStdout(), *output)
	}
	return command
}

func serviceNames(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	client, err := connectTo(c)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	response, err := client.Mesh.ListServices(c.Context(), connect.NewRequest(&pb.ListServicesRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, s := range response.Msg.GetItems() {
		if name := s.GetName().GetName() + "." + s.GetName().GetNamespace(); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func dashboardCommand() *cobra.Command {
	var open bool
	command := &cobra.Command{
		Use: "dashboard", Short: "Print the addresses of the dashboard", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			response, err := client.Mesh.Overview(c.Context(), connect.NewRequest(&pb.OverviewRequest{}))
			if err != nil {
				return err
			}
			for i, m := range response.Msg.GetMembers() {
				if m.GetDashboard() == "" {
					continue
				}
				fmt.Fprintln(c.OutOrStdout(), m.GetDashboard())
				if open && i == 0 {
					exec.CommandContext(c.Context(), "xdg-open", m.GetDashboard()).Start()
				}
			}
			return nil
		},
	}
	command.Flags().BoolVar(&open, "open", false, "open it in the browser")
	return command
}

func configCommand() *cobra.Command {
	command := &cobra.Command{Use: "config", Short: "List and choose the meshes that commands talk to"}
	command.AddCommand(&cobra.Command{
		Use: "get-contexts", Short: "List the contexts", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, config, err := contexts()
			if err != nil {
				return err
			}
			for _, n := range config.Contexts {
				mark := " "
				if n.Name == config.CurrentContext {
					mark = "*"
				}
				fmt.Fprintf(c.OutOrStdout(), "%s %-20s %s\n", mark, n.Name, strings.Join(n.Context.Servers, ","))
			}
			return nil
		},
	}, &cobra.Command{
		Use: "use-context NAME", Short: "Choose the context", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, config, err := contexts()
			if err != nil {
				return err
			}
			if _, err := config.Pick(args[0]); err != nil {
				return err
			}
			config.CurrentContext = args[0]
			return config.Save(path)
		},
	})
	return command
}

func contexts() (string, *cli.Config, error) {
	path, err := cli.ConfigPath()
	if err != nil {
		return "", nil, err
	}
	config, err := cli.LoadConfig(path)
	return path, config, err
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(c *cobra.Command, _ []string) {
			fmt.Fprintln(c.OutOrStdout(), "periplus "+version())
		},
	}
}

// version is this program's.
func version() string { return process.Version() }
