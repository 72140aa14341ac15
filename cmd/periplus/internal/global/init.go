package global

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cmd/internal/operator"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func initialise() *cobra.Command {
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
			if err := named(domain, replicas, operators); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if pki.Exists(dir) {
				return extend(c, dir, domain, replicas, operators)
			}
			if err := pki.Init(dir, domain, replicas, operators); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "The keys are in %s: the root's, and those of %s.\n", dir, strings.Join(slices.Concat(replicas, operators), ", "))
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

// named refuses names before anything is made of them: a root without the rest would be in the way of the next try.
func named(domain string, replicas, operators []string) error {
	plane, err := spiffeid.TrustDomainFromString(domain)
	if err != nil {
		return fmt.Errorf("--trust-domain %q: %w", domain, err)
	}
	for _, id := range replicas {
		if _, err := mesh.ParseClusterID(id); err != nil || id == "operators" {
			return fmt.Errorf("--replica %q: want a-z, 0-9 and '-', at most 63 (RFC 1123), and not \"operators\"", id)
		}
	}
	for _, name := range operators {
		if _, err := mesh.PlaneIdentity(plane, mesh.RoleOperator, name); err != nil {
			return fmt.Errorf("--operator %q: %w", name, err)
		}
	}
	return nil
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
	path, config, err := operator.Contexts()
	if err != nil {
		return err
	}
	config.Set(domain, cli.Context{
		Servers: servers, TrustDomain: domain, Authority: filepath.Join(dir, "root.crt"),
		Certificate: filepath.Join(dir, "operators", operators[0]+".crt"), Key: filepath.Join(dir, "operators", operators[0]+".key"),
	}, true)
	return config.Save(path)
}
