package global

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/global"
	"github.com/periplus-mesh/periplus/global/dashboard"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func run() *cobra.Command {
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
			own := peerOf(config.Peers, config.ID)
			if config.MeshAdvertise, err = advertised("mesh", meshAdvertise, mesh, own.MeshAddress); err == nil {
				config.RaftAdvertise, err = advertised("raft", raftAdvertise, raft, own.RaftAddress)
			}
			if err != nil {
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
	flags.StringVar(&meshAdvertise, "mesh-advertise", "", "host:port by which others reach --mesh-address (default: that of --peer, or the same)")
	flags.StringVar(&raft, "raft-address", ":15013", "where replicas exchange the log")
	flags.StringVar(&raftAdvertise, "raft-advertise", "", "host:port by which others reach --raft-address (default: that of --peer, or the same)")
	flags.StringVar(&admin, "admin-address", ":15014", "where operators connect")
	flags.StringVar(&board, "dashboard-address", "127.0.0.1:8080", "where the read-only dashboard and /metrics are served, without TLS; '' for none")
	flags.StringArrayVar(&peers, "peer", nil, "first members, this one included: ID=RAFT-ADDRESS=MESH-ADDRESS (repeatable)")
	flags.BoolVar(&config.Bootstrap, "bootstrap", false, "begin a new mesh with the members of --peer if the data folder is empty")
	flags.StringVar(&config.Join, "join", "", "join a running mesh: --mesh-address of any of its replicas")
	command.MarkFlagRequired("id")
	command.MarkFlagRequired("pki")
	return command
}

func peerOf(peers []global.Peer, id string) global.Peer {
	for _, p := range peers {
		if p.ID == id {
			return p
		}
	}
	return global.Peer{}
}

// advertised is what others are told: what the flag says, what --peer says of this replica, or where it listens, if
// that is an address that others can connect to.
func advertised(which, given, listen, peer string) (string, error) {
	if address := cmp.Or(given, peer); address != "" {
		return address, nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return "", fmt.Errorf("--%s-address %q: want HOST:PORT, or :PORT for all addresses", which, listen)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		return "", fmt.Errorf("--%s-advertise is needed: others cannot connect to %s", which, listen)
	}
	return listen, nil
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
