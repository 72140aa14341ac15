// Package process is what every long-running command has: a logger by flags, a registry, listeners whose errors name
// their flag, and an end that is no error when it was asked for.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// Logging is the flags of the log.
type Logging struct{ level, format string }

// Flags adds --log-level and --log-format.
func (p *Logging) Flags(command *cobra.Command) {
	command.Flags().StringVar(&p.level, "log-level", "info", "debug, info, warn or error")
	command.Flags().StringVar(&p.format, "log-format", "text", "text or json")
}

// Logger writes to standard error.
func (p *Logging) Logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(p.level)); err != nil {
		return nil, cli.Exit(cli.ExitUsage, fmt.Errorf("--log-level %q: want debug, info, warn or error", p.level))
	}
	options := &slog.HandlerOptions{Level: level}
	switch p.format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, cli.Exit(cli.ExitUsage, fmt.Errorf("--log-format %q: want text or json", p.format))
}

// Registry has the figures of the Go runtime and of the process.
func Registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Listen opens the address of a flag; "" is no listener. What is no HOST:PORT is [cli.ExitUsage].
func Listen(flag, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, cli.Exit(cli.ExitUsage, fmt.Errorf("--%s %q: want HOST:PORT, or :PORT for all addresses", flag, address))
	}
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("--%s %s: another program listens there", flag, address)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", flag, address, err)
	}
	return listener, nil
}

// Socket refuses what is no address of a Unix socket, as [cli.ExitUsage].
func Socket(flag, address string) error {
	if !strings.HasPrefix(address, "unix:///") {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("--%s %q: want unix:///path", flag, address))
	}
	return nil
}

// ListenAll opens several; flags and addresses alternate. After an error none is open.
func ListenAll(flagsAndAddresses ...string) (out []net.Listener, err error) {
	for i := 0; i < len(flagsAndAddresses); i += 2 {
		listener, err := Listen(flagsAndAddresses[i], flagsAndAddresses[i+1])
		if err != nil {
			for _, open := range out {
				if open != nil {
					open.Close()
				}
			}
			return nil, err
		}
		out = append(out, listener)
	}
	return out, nil
}

// Interrupted is a Run that ended because it was asked to: no error.
func Interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
