package inspect

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Trust shows how the clusters trust each other.
func Trust() *cobra.Command {
	command := &cobra.Command{Use: "trust", Short: "See how the clusters trust each other"}
	command.AddCommand(trustStatus())
	return command
}

func trustStatus() *cobra.Command {
	command := &cobra.Command{
		Use: "status", Short: "Show who holds which sequence of each trust domain's bundle",
		Long: `Prints one line for each trust domain and each cluster: which sequence of the domain's bundle the cluster's SPIRE
server holds, as the cluster's agent found it there, and for how long (HELD). OWNER is the domain's own cluster.
EXPIRES is when the last of the roots does; ROOTS counts expired ones too, which SPIRE keeps for a day.

  Published, InSync  the newest bundle
  Behind             an older one; it arrives within seconds, or REASON says why not
  Ahead              a newer one, fetched from the domain's bundle endpoint before the mesh brought it
  Missing            none: workloads there refuse the domain
  Refused            the newest was not taken, REASON says why; what was held stays
  Stale              nobody has looked for a while, REASON says why
  NotFederated       the cluster's agent was given no SPIRE server
  Unknown            the cluster's agent has not reported yet

Before a new root signs, every line of its domain should be InSync.`,
		Args: cobra.NoArgs,
	}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := operator.Connect(c)
		if err != nil {
			return err
		}
		response, err := client.Mesh.TrustStatus(c.Context(), connect.NewRequest(&pb.TrustStatusRequest{}))
		if err != nil {
			return err
		}
		return trustList(response.Msg.GetItems()).Print(c.OutOrStdout(), *format)
	}
	return command
}

// trustList has each domain once, with the pairs in it for programs, and a line for each pair for people.
func trustList(items []*pb.TrustDomainStatus) *cli.List {
	list := &cli.List{Kind: "TrustDomain", Columns: []cli.Column{
		{Title: "TRUST-DOMAIN"}, {Title: "OWNER"}, {Title: "HELD-BY"}, {Title: "STATE"}, {Title: "SEQUENCE"}, {Title: "HELD"}, {Title: "ROOTS"},
		{Title: "EXPIRES"}, {Title: "REPORTED", Wide: true}, {Title: "DELIVERY", Wide: true}, {Title: "REASON"},
	}}
	for _, d := range items {
		list.Rows = append(list.Rows, cli.Row{Name: d.GetTrustDomain(), Item: d, Cells: []string{
			d.GetTrustDomain(), d.GetCluster(), d.GetCluster(), d.GetState(), sequence(d.GetOwnSequence(), d.GetSequence()),
			operator.Age(d.GetHeldMs()), fmt.Sprint(d.GetAuthorities()), operator.Until(d.GetExpiresAtMs()), operator.Age(d.GetAgeMs()), "", d.GetReason(),
		}})
		for _, p := range d.GetPeers() {
			list.Rows = append(list.Rows, cli.Row{Cells: pairCells(d, p)})
		}
	}
	return list
}

func pairCells(d *pb.TrustDomainStatus, p *pb.TrustPeerStatus) []string {
	return []string{
		d.GetTrustDomain(), d.GetCluster(), p.GetCluster(), p.GetState(), sequence(p.GetSequence(), d.GetSequence()),
		operator.Age(p.GetHeldMs()), fmt.Sprint(p.GetAuthorities()), operator.Until(p.GetExpiresAtMs()), operator.Age(p.GetAgeMs()), p.GetDelivery(), p.GetReason(),
	}
}

// sequence shows the mesh's too where it is another.
func sequence(held, mesh uint64) string {
	if held == mesh || held == 0 {
		return fmt.Sprint(held)
	}
	return fmt.Sprintf("%d of %d", held, mesh)
}
