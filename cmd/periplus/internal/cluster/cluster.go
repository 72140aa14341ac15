package cluster

import (
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/operator"
)

// Command is "periplus cluster".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "cluster", Aliases: []string{"clusters"}, Short: "Register clusters and steer them"}
	command.AddCommand(
		register(), list(), describeCommand(), rotate(), remove(),
		setState("drain", "Take a cluster's endpoints out of every assignment", pb.ClusterState_CLUSTER_STATE_DRAINED),
		setState("undrain", "Let a drained cluster take traffic again", pb.ClusterState_CLUSTER_STATE_ACTIVE),
	)
	return command
}

func setState(verb, short string, state pb.ClusterState) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1), ValidArgsFunction: operator.ClusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := operator.Connect(c)
			if err != nil {
				return err
			}
			if _, err := client.Clusters.SetClusterState(c.Context(), connect.NewRequest(&pb.SetClusterStateRequest{Id: args[0], State: state})); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s %sed\n", args[0], verb)
			return nil
		},
	}
}

func rotate() *cobra.Command {
	var revoke bool
	command := &cobra.Command{
		Use: "rotate NAME", Short: "Make a cluster's agent fetch a new credential", Args: cobra.ExactArgs(1), ValidArgsFunction: operator.ClusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := operator.Connect(c)
			if err != nil {
				return err
			}
			response, err := client.Clusters.RotateCluster(c.Context(), connect.NewRequest(&pb.RotateClusterRequest{Id: args[0], Revoke: revoke}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s rotated: credential generation %d\n", args[0], response.Msg.GetCluster().GetCredentialGeneration())
			return nil
		},
	}
	command.Flags().BoolVar(&revoke, "revoke", false, "refuse the old credential at once and end its sessions; the agent must then register again")
	return command
}

func remove() *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use: "remove NAME", Aliases: []string{"rm"}, Short: "Remove a cluster and everything that it published", Args: cobra.ExactArgs(1), ValidArgsFunction: operator.ClusterNames,
		RunE: func(c *cobra.Command, args []string) error {
			client, err := operator.Connect(c)
			if err != nil {
				return err
			}
			response, err := client.Clusters.RemoveCluster(c.Context(), connect.NewRequest(&pb.RemoveClusterRequest{Id: args[0], Force: force}))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "cluster/%s removed, with %d objects\n", args[0], response.Msg.GetRemovedObjects())
			return nil
		},
	}
	command.Flags().BoolVar(&force, "force", false, "remove it although its agent is connected")
	return command
}
