package authority

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/trust/authority"
)

// Command is "periplus authority".
func Command() *cobra.Command {
	var p process.Logging
	config := authority.Config{}
	var domain string
	command := &cobra.Command{
		Use: "authority", Short: "Run the embedded stand-in for SPIRE: SPIRE server API and SPIFFE Workload API for one trust domain",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			if config.TrustDomain, err = spiffeid.TrustDomainFromString(domain); err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			if err := os.MkdirAll(config.DataDir, 0o700); err != nil {
				return err
			}
			config.Log, config.Metrics = log, process.Registry()
			return process.Interrupted(c.Context(), authority.Run(c.Context(), config))
		},
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&domain, "trust-domain", "", "SPIFFE trust domain (required)")
	flags.StringVar(&config.DataDir, "data-dir", "/var/lib/periplus/authority", "folder for keys and entries")
	flags.StringVar(&config.ServerSocket, "server-socket", "", "where the SPIRE server API is served, unix:///path (required)")
	flags.StringVar(&config.WorkloadSocket, "workload-socket", "", "where the SPIFFE Workload API is served, unix:///path (required)")
	flags.DurationVar(&config.CATTL, "ca-ttl", 30*24*time.Hour, "lifetime of a root")
	flags.DurationVar(&config.SVIDTTL, "svid-ttl", time.Hour, "lifetime of a workload's certificate")
	for _, name := range []string{"trust-domain", "server-socket", "workload-socket"} {
		command.MarkFlagRequired(name)
	}
	return command
}
