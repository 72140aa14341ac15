package operator

import (
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// ContextNames completes with the contexts that there are.
func ContextNames(prefix string) (names []string, _ cobra.ShellCompDirective) {
	_, config, err := Contexts()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, n := range config.Contexts {
		if strings.HasPrefix(n.Name, prefix) {
			names = append(names, n.Name+"\t"+n.Context.TrustDomain)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// ClusterNames completes the first argument with the clusters of the mesh.
func ClusterNames(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	client, err := Connect(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	response, err := client.Clusters.ListClusters(c.Context(), connect.NewRequest(&pb.ListClustersRequest{}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	for _, s := range response.Msg.GetItems() {
		if strings.HasPrefix(s.GetCluster().GetId(), prefix) {
			names = append(names, s.GetCluster().GetId()+"\t"+s.GetCluster().GetRegion())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// ServiceNames completes the first argument with the services of the mesh.
func ServiceNames(c *cobra.Command, args []string, prefix string) (names []string, _ cobra.ShellCompDirective) {
	client, err := Connect(c)
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
