// Command periplus-proxy is the data plane alone: a sidecar, or an east-west gateway. It links neither client-go nor
// raft, so that it is small where it runs in thousands.
//
//	periplus-proxy sidecar --name cart-1 --cluster eu-west --service cart.shop --agent 10.0.0.1:15012 ...
//	periplus-proxy eastwest --name gw-1 --cluster eu-west --network vpc-1 --agent 10.0.0.1:15012 ...
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

const usage = `usage: periplus-proxy sidecar|eastwest [flags]

  sidecar   carries a workload's requests into the mesh, and the mesh's to the workload
  eastwest  passes other networks' mTLS connections on, by SNI

'periplus-proxy sidecar -h' lists its flags.
`

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// errUsage wraps what the caller can put right on the command line.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(exitUsage)
	}
	fmt.Fprintln(os.Stderr, "periplus-proxy:", err)
	os.Exit(exitFailure)
}

func run(ctx context.Context, args []string, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return errUsage
	}
	switch args[0] {
	case "sidecar", "proxy":
		return runSidecar(ctx, args[1:], stderr)
	case "eastwest", "gateway":
		return runGateway(ctx, args[1:], stderr)
	case "help", "-h", "--help":
		fmt.Fprint(stderr, usage)
		return nil
	}
	fmt.Fprint(stderr, usage)
	return fmt.Errorf("%w: unknown command %q", errUsage, args[0])
}

// logger writes text or JSON to standard error; its level can be changed later.
func logger(level, format string) (*slog.Logger, *slog.LevelVar, error) {
	variable := new(slog.LevelVar)
	if err := variable.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("%w: -log-level %q: want debug, info, warn or error", errUsage, level)
	}
	options := &slog.HandlerOptions{Level: variable}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), variable, nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), variable, nil
	}
	return nil, nil, fmt.Errorf("%w: -log-format %q: want text or json", errUsage, format)
}

func registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// listen opens the admin interface; "" is none.
func listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("-admin-address: %w", err)
	}
	return listener, nil
}
