package svid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/trust"
)

// Command is "periplus svid".
func Command() *cobra.Command {
	command := &cobra.Command{Use: "svid", Short: "Get the identity that this process has from the SPIFFE Workload API"}
	command.AddCommand(fetch())
	return command
}

func fetch() *cobra.Command {
	var p process.Logging
	var socket, path, dir, plane string
	var watch bool
	var timeout time.Duration
	command := &cobra.Command{
		Use: "fetch", Short: "Show the identity, or write it to files for programs that read those", Args: cobra.NoArgs,
		Long: fmt.Sprintf(`Gets the X.509-SVID of this process and the bundles that it trusts from the SPIFFE Workload API. With --write it puts
them into files, each replaced at once: %s (the chain), %s, %s (the roots of the own trust domain),
bundle.DOMAIN.pem (those of each), %s (the own domain's and the control plane's) and %s (all, by trust
domain). With --watch it goes on and renews them; run it beside a program that reads files, such as a gRPC client with
certificate_providers.`, trust.FileSVID, trust.FileKey, trust.FileBundle, trust.FileControl, trust.FileBundleMap),
		Example: "  periplus svid fetch --workload-socket unix:///run/spire/agent/api.sock --write /run/svid --watch",
	}
	command.RunE = func(c *cobra.Command, _ []string) error {
		log, err := p.Logger()
		if err != nil {
			return err
		}
		if watch && dir == "" {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--watch keeps files fresh: say where with --write"))
		}
		if err := process.Socket("workload-socket", socket); err != nil {
			return err
		}
		domain, err := spiffeid.TrustDomainFromString(plane)
		if err != nil {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("--control-plane: %w", err))
		}
		if dir != "" {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}
		ctx, stop := context.WithCancelCause(c.Context())
		defer stop(nil)
		late := time.AfterFunc(cmp.Or(timeout, math.MaxInt64), func() { stop(errNoIdentity) })
		source, err := trust.WatchAs(ctx, socket, path, log)
		late.Stop()
		if err != nil && errors.Is(context.Cause(ctx), errNoIdentity) {
			return cli.Exit(cli.ExitTempFail, fmt.Errorf("no identity within %v: is %s the right socket, and is there a registration entry for this process?\n%w", timeout, socket, err))
		}
		if err != nil {
			return err
		}
		defer source.Close()
		written := func(m *trust.Material) {
			fmt.Fprintf(c.OutOrStdout(), "%s until %s, trusts %d domains\n", m.ID, m.Certificate.Leaf.NotAfter.Format(time.RFC3339), len(m.Bundles))
		}
		if watch {
			return process.Interrupted(c.Context(), trust.KeepFiles(ctx, dir, source, domain, written))
		}
		material, _ := source.Get()
		if dir != "" {
			err = trust.WriteFiles(dir, material, domain)
		}
		if err == nil {
			written(material)
		}
		return err
	}
	flags := command.Flags()
	p.Flags(command)
	flags.StringVar(&socket, "workload-socket", "unix:///run/spire/agent/api.sock", "SPIFFE Workload API")
	flags.StringVar(&path, "path", "", "path of the SPIFFE ID to take, of a process that has several (default: the first)")
	flags.StringVar(&dir, "write", "", "folder for the files")
	flags.StringVar(&plane, "control-plane", "periplus.global", "trust domain of the controllers")
	flags.BoolVar(&watch, "watch", false, "go on, and write again whenever something is renewed")
	flags.DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for the first identity; 0: for ever")
	return command
}

// errNoIdentity is the end of --timeout.
var errNoIdentity = errors.New("no identity in time")
