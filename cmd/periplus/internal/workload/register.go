package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
)

type registration struct {
	registryFlags
	log    process.Logging
	form   form
	file   string
	ttl    time.Duration
	once   bool
	dryRun bool
	health healthCheck
}

func register() *cobra.Command {
	var r registration
	command := &cobra.Command{
		Use: "register [NAME]", Short: "Register a workload, for as long as this command runs",
		Long: `Registers a workload as an endpoint of a service, under a lease that this command keeps alive. Interrupted, it takes
the workload out at once; killed, or with its machine gone, the workload goes when the lease ends. While etcd is away
it tries on. With --once it writes and exits: the workload goes after --ttl, unless the command runs again.`,
		Example: `  periplus workload register vm-7 --etcd https://etcd-1:2379 --cluster dc-1 --service catalog.shop \
    --address 10.0.0.7 --port http=8080 --zone a --identity spiffe://dc-1.example.org/ns/shop/sa/catalog
  periplus workload register -f vm-7.yaml --etcd https://etcd-1:2379 --cluster dc-1 --health-check http://10.0.0.7:8080/healthz`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return r.run(c, args) },
	}
	flags := command.Flags()
	r.registryFlags.add(command, true)
	r.log.Flags(command)
	r.form.flags(flags)
	flags.StringVarP(&r.file, "file", "f", "", "read the workload from a YAML file ('-': standard input) in place of flags: a document of kind Endpoints with one endpoint, and one of kind Service before it")
	flags.DurationVar(&r.ttl, "ttl", 15*time.Second, "how long the workload stays registered without this command")
	flags.BoolVar(&r.once, "once", false, "write once and exit")
	flags.BoolVar(&r.dryRun, "dry-run", false, "print what would be written")
	flags.StringVar(&r.health.target, "health-check", "", "check the workload, http://HOST:PORT/PATH or tcp://HOST:PORT; failing, it is registered as unhealthy")
	flags.DurationVar(&r.health.every, "health-interval", 2*time.Second, "how often")
	flags.IntVar(&r.health.times, "health-threshold", 3, "how many checks in a row change the health")
	return command
}

func (r *registration) run(c *cobra.Command, args []string) error {
	log, err := r.log.Logger()
	if err != nil {
		return err
	}
	if r.ttl < 5*time.Second || r.ttl > 24*time.Hour {
		return cli.Exit(cli.ExitUsage, fmt.Errorf("--ttl %s: want 5s to 24h", r.ttl))
	}
	if err := r.health.validate(); err != nil {
		return cli.Exit(cli.ExitUsage, err)
	}
	if r.once && r.health.target != "" {
		return cli.Exit(cli.ExitUsage, errors.New("--health-check needs a command that runs on: leave out --once"))
	}
	value, err := r.value(c, args)
	if err != nil {
		return err
	}
	name, err := readWorkload(value, mesh.ClusterID(r.cluster))
	if err != nil {
		return cli.Exit(cli.ExitData, err)
	}
	if r.dryRun {
		fmt.Fprintf(c.OutOrStdout(), "# %s\n%s", r.root()+name.Path(), value)
		return nil
	}
	client, err := r.connect(c.Context())
	if err != nil {
		return err
	}
	defer client.Close()
	if r.once {
		return r.write(c, client, name, value)
	}
	return r.hold(c, client, log, name, value)
}

// value is the record as it will be written.
func (r *registration) value(c *cobra.Command, args []string) ([]byte, error) {
	if r.file != "" {
		if len(args) > 0 || slices.ContainsFunc(formFlags, c.Flags().Changed) {
			return nil, cli.Exit(cli.ExitUsage, errors.New("--file says it all: leave out NAME and the workload's flags"))
		}
		data, err := cli.ReadInput(r.file, c.InOrStdin())
		if err != nil {
			return nil, cli.Exit(cli.ExitData, err)
		}
		return data, nil
	}
	if len(args) == 0 {
		return nil, cli.Exit(cli.ExitUsage, errors.New("NAME or --file is needed"))
	}
	value, err := r.form.value(args[0])
	if err != nil {
		return nil, cli.Exit(cli.ExitUsage, err)
	}
	return value, nil
}

// write writes once, under a lease that nobody renews.
func (r *registration) write(c *cobra.Command, client *clientv3.Client, name etcd.Name, value []byte) error {
	ctx, cancel := context.WithTimeout(c.Context(), registryTimeout)
	defer cancel()
	lease, err := client.Grant(ctx, int64(r.ttl.Seconds()))
	if err == nil {
		_, err = client.Put(ctx, r.root()+name.Path(), string(value), clientv3.WithLease(lease.ID))
	}
	if err != nil {
		return r.failed(err)
	}
	fmt.Fprintf(c.OutOrStdout(), "workload/%s registered for %s\n", name.Workload, time.Duration(lease.TTL)*time.Second)
	return nil
}

// hold keeps the workload registered until the command is interrupted, then takes it out.
func (r *registration) hold(c *cobra.Command, client *clientv3.Client, log *slog.Logger, name etcd.Name, value []byte) error {
	told := false
	holder := &etcd.Holder{Client: client, Root: r.root(), TTL: r.ttl, Exclusive: true, Log: log, OnWrite: func(int) {
		if !told {
			fmt.Fprintf(c.OutOrStdout(), "workload/%s registered\n", name.Workload)
		}
		told = true
	}}
	records := watch.New(etcd.Records{name.Path(): value})
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		r.health.run(ctx, log, func(healthy bool) {
			if out, err := healthOf(value, healthy); err == nil {
				records.Set(etcd.Records{name.Path(): out})
			}
		})
	}()
	err := holder.Run(ctx, records)
	cancel()
	<-checked
	if errors.Is(err, etcd.ErrGone) {
		return cli.Exit(cli.ExitData, fmt.Errorf("workload %q was deregistered: %w", name.Workload, err))
	}
	if err != nil {
		return err
	}
	last, err := etcd.WithHealth(value, mesh.Draining)
	if err == nil {
		err = holder.Release(context.WithoutCancel(c.Context()), etcd.Records{name.Path(): last})
	}
	if err != nil {
		return cli.Exit(cli.ExitTempFail, fmt.Errorf("%w; the workload goes when its lease of %s ends", err, r.ttl))
	}
	fmt.Fprintf(c.OutOrStdout(), "workload/%s deregistered\n", name.Workload)
	return nil
}

func healthOf(value []byte, healthy bool) ([]byte, error) {
	if healthy {
		return value, nil
	}
	return etcd.WithHealth(value, mesh.Unhealthy)
}
