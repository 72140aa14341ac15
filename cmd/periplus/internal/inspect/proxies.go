package inspect

import (
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// xdsTypes are the columns of proxy-status, in the order in which they are delivered.
var xdsTypes = []string{"CDS", "EDS", "LDS", "RDS"}

// oldReport is the age from which a report says how a proxy was, and not how it is. Agents report every two seconds.
const oldReport = 15 * time.Second

// ProxyStatus says of every proxy whether it has the newest configuration.
func ProxyStatus() *cobra.Command {
	var cluster string
	command := &cobra.Command{
		Use: "proxy-status", Aliases: []string{"ps"}, Short: "Say of every proxy whether it has the newest configuration",
		Long: `Prints every proxy that has a stream to its cluster's agent, as the agent last reported it (REPORTED ago, to the
controller CONTROLLER), and what became of each type of resources:

  SYNCED     the proxy has accepted the newest
  STALE      the newest is sent and not accepted yet
  NOT SENT   it asked, and there is nothing for it
  ERROR      it has rejected the newest and keeps the one before; the agent's log says why
  -          it did not ask

A report that is old says how the proxy was then: with its agent gone it follows a controller, and is not counted here.`,
		Args: cobra.NoArgs,
	}
	format := output.ListFlag(command)
	command.Flags().StringVar(&cluster, "cluster", "", "only proxies of this cluster")
	command.RegisterFlagCompletionFunc("cluster", operator.ClusterNames)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Mesh.ListProxies(c.Context(), connect.NewRequest(&pb.ListProxiesRequest{Cluster: cluster}))
		if err != nil {
			return err
		}
		return proxyList(response.Msg.GetItems()).Print(c.OutOrStdout(), *format)
	}
	return command
}

func proxyList(items []*pb.ProxyStatus) *cli.List {
	list := &cli.List{Kind: "Proxy", Columns: []cli.Column{
		{Title: "NAME"}, {Title: "CLUSTER"}, {Title: "ROLE"}, {Title: "CDS"}, {Title: "EDS"}, {Title: "LDS"}, {Title: "RDS"}, {Title: "LAST-ACK"},
		{Title: "REPORTED"}, {Title: "CONTROLLER"}, {Title: "REGION", Wide: true}, {Title: "ZONE", Wide: true}, {Title: "SERVICE", Wide: true}, {Title: "VERSION", Wide: true},
	}}
	for _, p := range items {
		s := p.GetState()
		// The id is ROLE~CLUSTER~NAME, if the proxy keeps to the custom.
		parts := strings.SplitN(s.GetId(), "~", 3)
		cells := []string{parts[len(parts)-1], p.GetCluster(), s.GetRole()}
		for _, t := range xdsTypes {
			cells = append(cells, typeState(p, s.GetTypes()[t]))
		}
		controller := p.GetReplica()
		if controller == "" {
			controller = "<none>"
		}
		cells = append(cells, operator.Age(s.GetAckAgeMs()), operator.Age(p.GetAgeMs()), controller, p.GetRegion(), s.GetZone(), s.GetService(), s.GetVersion())
		list.Rows = append(list.Rows, cli.Row{Name: s.GetId(), Item: p, Cells: cells})
	}
	return list
}

// typeState does not say SYNCED of what nobody has looked at.
func typeState(p *pb.ProxyStatus, state string) string {
	switch {
	case state == "":
		return "-"
	case time.Duration(p.GetAgeMs())*time.Millisecond > oldReport:
		return fmt.Sprintf("was %s", state)
	}
	return state
}
