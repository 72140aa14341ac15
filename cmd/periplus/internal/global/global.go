package global

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/cmd/internal/output"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Command is "periplus global".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "global", Short: "The global controller: run a replica, see and change who belongs to it"}
	command.AddCommand(initialise(), run(), members(), join(), leave())
	return command
}

func members() *cobra.Command {
	command := &cobra.Command{Use: "members", Short: "List the replicas", Args: cobra.NoArgs}
	format := output.ListFlag(command)
	command.RunE = func(c *cobra.Command, _ []string) error {
		client, err := operator.Connect(c)
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
				m.GetId(), m.GetAddress(), m.GetRole(), fmt.Sprint(m.GetVoter()), fmt.Sprint(m.GetAppliedIndex()), operator.Age(m.GetAgeMs()),
			}})
		}
		return list.Print(c.OutOrStdout(), *format)
	}
	return command
}

func join() *cobra.Command {
	var voter bool
	command := &cobra.Command{
		Use: "join ID RAFT-ADDRESS MESH-ADDRESS", Short: "Let a replica join", Args: cobra.ExactArgs(3),
		Long: `Lets a replica join; one that runs with --join asks for that by itself. It must have keys of this control plane:
'global init --replica ID' adds them to an existing folder of keys.`,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := operator.Connect(c)
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

func leave() *cobra.Command {
	return &cobra.Command{
		Use: "leave ID", Short: "Take a replica out of the mesh, so that another can replace it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			client, err := operator.Connect(c)
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
