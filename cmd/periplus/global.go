package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/global"
	"github.com/periplus-mesh/periplus/global/dashboard"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func globalCommand() *cobra.Command {
	command := &cobra.Command{Use: "global", Short: "The global controller: run a replica, see and change who belongs to it"}
	command.AddCommand(globalInit(), globalRun(), globalMembers(), globalJoin(), globalLeave())
	return command
}

func globalInit() *cobra.Command {
	var dir, domain string
	var replicas, operators []string
	command := &cobra.Command{
		Use: "init", Short: "Make the keys of a new control plane: a root, an issuer for each replica, operators' certificates",
		Long: `Makes the control plane's root key, an intermediate for each replica and a certificate for each operator, below --dir.
Give each replica its own folder and nobody root.key: no replica needs it to run.

In a folder that has a root, it adds the replicas and operators that are not there yet. Existing keys are never replaced.`,
		Example: `  periplus global init --dir pki --trust-domain periplus.example.org --replica g-1 --replica g-2 --replica g-3 --operator alice
  periplus global init --dir pki --trust-domain periplus.example.org --replica g-4`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if pki.Exists(dir) {
				return extend(c, dir, domain, replicas, operators)
			}
			if err := pki.Init(dir, domain, replicas, operators); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "Keys of %d replicas and %d operators are in %s.\n", len(replicas), len(operators), dir)
			return enter(c, dir, domain, operators)
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "dir", "pki", "folder for the keys")
	flags.StringVar(&domain, "trust-domain", "", "SPIFFE trust domain of the control plane (required)")
	flags.StringArrayVar(&replicas, "replica", nil, "name of a replica (required, repeatable)")
	flags.StringArrayVar(&operators, "operator", []string{"admin"}, "name of an operator (repeatable)")
	flags.StringArray("server", nil, "host:port of a replica's admin API; enters the first operator in the contexts file (repeatable)")
	command.MarkFlagRequired("trust-domain")
	command.MarkFlagRequired("replica")
	return command
}

// extend adds to existing keys. The default operator is for new ones.
func extend(c *cobra.Command, dir, domain string, replicas, operators []string) error {
	if !c.Flags().Changed("operator") {
		operators = nil
	}
	added, err := pki.Add(dir, domain, replicas, operators)
	if err != nil {
		return err
	}
	if len(added) == 0 {
		fmt.Fprintf(c.OutOrStdout(), "All of them have keys in %s already.\n", dir)
		return nil
	}
	fmt.Fprintf(c.OutOrStdout(), "Added to %s: %s.\n", dir, strings.Join(added, ", "))
	return enter(c, dir, domain, operators)
}

// enter writes a context for the first operator if the servers are known.
func enter(c *cobra.Command, dir, domain string, operators []string) error {
	servers, _ := c.Flags().GetStringArray("server")
	if len(servers) == 0 || len(operators) == 0 {
		return nil
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	path, config, err := contexts()
	if err != nil {
		return err
	}
	config.Set(domain, cli.Context{
		Servers: servers, TrustDomain: domain, Authority: filepath.Join(dir, "root.crt"),
		Certificate: filepath.Join(dir, "operators", operators[0]+".crt"), Key: filepath.Join(dir, "operators", operators[0]+".key"),
	}, true)
	return config.Save(path)
}

func globalRun() *cobra.Command {
	var p process.Logging
	config := global.Config{}
	var keys, mesh, raft, admin, board, meshAdvertise, raftAdvertise string
	var peers []string
	command := &cobra.Command{
		Use: "run", Short: "Run a replica of the global controller", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.Peers, err = parsePeers(peers); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if config.PKI, err = pki.Load(keys); err != nil {
				return cli.Exit(cli.ExitData, err)
			}
			if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
				return err
			}
			listeners, err := process.ListenAll("mesh-address", mesh, "raft-address", raft, "admin-address", admin, "dashboard-address", board)
			if err != nil {
				return err
			}
			config.MeshListener, config.RaftListener, config.AdminListener, config.DashboardListener = listeners[0], listeners[1], listeners[2], listeners[3]
			config.MeshAdvertise, config.RaftAdvertise = or(meshAdvertise, mesh), or(raftAdvertise, raft)
			config.Log, config.Metrics, config.Dashboard = log, process.Registry(), dashboard.Handler()
			return process.Interrupted(c.Context(), global.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&config.ID, "id", "", "name of this replica, as in 'global init' (required)")
	flags.StringVar(&config.Region, "region", "", "region that it runs in")
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/periplus/global", "folder for the raft log and snapshots")
	flags.StringVar(&keys, "pki", "", "folder with this replica's keys, from 'global init' (required)")
	flags.StringVar(&mesh, "mesh-address", ":15012", "where agents, proxies and replicas connect")
	flags.StringVar(&meshAdvertise, "mesh-advertise", "", "host:port by which others reach --mesh-address (default: the same)")
	flags.StringVar(&raft, "raft-address", ":15013", "where replicas exchange the log")
	flags.StringVar(&raftAdvertise, "raft-advertise", "", "host:port by which others reach --raft-address (default: the same)")
	flags.StringVar(&admin, "admin-address", ":15014", "where operators connect")
	flags.StringVar(&board, "dashboard-address", "127.0.0.1:8080", "where the read-only dashboard and /metrics are served, without TLS; '' for none")
	flags.StringArrayVar(&peers, "peer", nil, "first members, this one included: ID=RAFT-ADDRESS=MESH-ADDRESS (repeatable)")
	flags.BoolVar(&config.Bootstrap, "bootstrap", false, "begin a new mesh with the members of --peer if the data folder is empty")
	flags.StringVar(&config.Join, "join", "", "join a running mesh: --mesh-address of any of its replicas")
	command.MarkFlagRequired("id")
	command.MarkFlagRequired("pki")
	return command
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func parsePeers(flags []string) (out []global.Peer, err error) {
	for _, flag := range flags {
		parts := strings.Split(flag, "=")
		if len(parts) != 3 {
			return nil, fmt.Errorf("--peer %q: want ID=RAFT-ADDRESS=MESH-ADDRESS", flag)
		}
		out = append(out, global.Peer{ID: parts[0], RaftAddress: parts[1], MeshAddress: parts[2]})
	}
	return out, nil
}

func globalMembers() *cobra.Command {
	command := &cobra.Command{Use: "members", Short: "List the replicas", Args: cobra.NoArgs}
	output := outputFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := connectTo(c)
		if err != nil {
			return err
		}
		response, err := client.Mesh.ListMembers(c.Context(), connect.NewRequest(&pb.ListMembersRequest{}))
		if err != nil {
			return err
		}
		list := cli.List{Kind: "Member", Columns: []cli.Column{{Title: "ID"}, {Title: "ADDRESS"}, {Title: "ROLE"}, {Title: "VOTER"}, {Title: "APPLIED"}, {Title: "AGE"}}}
		for _, m := range response.Msg.GetItems() {
			list.Rows = append(list.Rows, cli.Row{Name: m.GetId(), Item: m, Cells: []string{
				m.GetId(), m.GetAddress(), m.GetRole(), fmt.Sprint(m.GetVoter()), fmt.Sprint(m.GetAppliedIndex()), age(m.GetAgeMs()),
			}})
		}
		return list.Print(c.OutOrStdout(), *output)
	}
	return command
}

func globalJoin() *cobra.Command {
	var voter bool
	command := &cobra.Command{
		Use: "join ID RAFT-ADDRESS MESH-ADDRESS", Short: "Let a replica join", Args: cobra.ExactArgs(3),
		Long: `Lets a replica join; one that runs with --join asks for that by itself. It must have keys of this control plane:
'global init --replica ID' adds them to an existing folder of keys.`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			_, err = client.Mesh.AddMember(c.Context(), connect.NewRequest(&pb.AddMemberRequest{Id: args[0], Address: args[1] + "," + args[2], Voter: voter}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "member/%s joined\n", args[0])
			return nil
		},
	}
	command.Flags().BoolVar(&voter, "voter", true, "it votes; false: it only follows, for reads and xDS near its clients")
	return command
}

func globalLeave() *cobra.Command {
	return &cobra.Command{
		Use: "leave ID", Short: "Take a replica out of the mesh, so that another can replace it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := connectTo(c)
			if err != nil {
				return err
			}
			if _, err := client.Mesh.RemoveMember(c.Context(), connect.NewRequest(&pb.RemoveMemberRequest{Id: args[0]})); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "member/%s left\n", args[0])
			return nil
		},
	}
}
