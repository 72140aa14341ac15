package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// startTimeout bounds each wave of the start.
const startTimeout = 60 * time.Second

type runner struct {
	plan       *Plan
	supervisor *Supervisor
	out        io.Writer // progress
	ready      atomic.Bool
}

// Run starts the mesh and keeps it until ctx ends or somebody asks for the end. Progress goes to out; when
// everything is ready, show is called and may draw until its context ends. What was started is ended before Run
// returns; the folder keeps its state.
func Run(ctx context.Context, plan *Plan, out io.Writer, show func(context.Context, *Plan, func() Report)) error {
	held, err := lock(plan.Dir)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := plan.samePrefix(); err != nil {
		return err
	}
	if err := plan.free(); err != nil {
		return err
	}
	if err := plan.keep(); err != nil { // a mesh that could not start does not bind the next try to its addresses
		return err
	}
	ctx, down := context.WithCancel(ctx)
	defer down()
	r := &runner{plan: plan, supervisor: NewSupervisor(plan), out: out}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.serveControl(ctx, down) })
	group.Go(func() error {
		if err := r.start(ctx); err != nil {
			return err
		}
		r.ready.Store(true)
		show(ctx, plan, r.report)
		return nil
	})
	err = group.Wait()
	fmt.Fprintln(out, "Ending every process of the mesh ...")
	r.supervisor.Close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// start walks the roles in order. Every step finds what an earlier run left and builds on it.
func (r *runner) start(ctx context.Context) error {
	began := time.Now()
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"folder, keys and binaries", r.prepare},
		{"controllers (raft)", r.wave(Controller)},
		{"authorities (SPIFFE)", r.authorities},
		{"registering the clusters", r.register},
		{"agents", r.wave(Agent)},
		{"east-west gateways and shop", r.wave(Gateway, Shop)},
		{"sidecars", r.wave(Sidecar)},
		{"visitors", r.wave(Traffic)},
	}
	for i, step := range steps {
		stepBegan := time.Now()
		fmt.Fprintf(r.out, "[%d/%d] %-32s", i+1, len(steps), step.what)
		bounded, cancel := context.WithTimeout(ctx, startTimeout)
		err := step.do(bounded)
		cancel()
		if err != nil {
			fmt.Fprintln(r.out, "failed")
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Fprintf(r.out, "%5.1fs\n", time.Since(stepBegan).Seconds())
	}
	fmt.Fprintf(r.out, "Ready: %d processes in %.1fs.\n", len(r.plan.Processes), time.Since(began).Seconds())
	return nil
}

// wave starts every process of the roles and waits until all are ready.
func (r *runner) wave(roles ...Role) func(context.Context) error {
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, role := range roles {
			for _, process := range r.plan.Processes {
				if process.Role == role {
					group.Go(func() error {
						if err := r.supervisor.Start(process.Name); err != nil {
							return err
						}
						return r.supervisor.Await(ctx, process.Name)
					})
				}
			}
		}
		return group.Wait()
	}
}

// enterContext tells the commands how to reach this mesh.
func (r *runner) enterContext() error {
	path, err := cli.ConfigPath()
	if err != nil {
		return err
	}
	config, err := cli.LoadConfig(path)
	if err != nil {
		return err
	}
	config.Set(r.plan.Context, r.plan.OperatorContext(), true)
	return config.Save(path)
}

// OperatorContext is the mesh as its operator reaches it.
func (p *Plan) OperatorContext() cli.Context {
	return cli.Context{
		Servers: p.AdminServers(), TrustDomain: planeDomain,
		Certificate: p.path("pki", "operators", "up.crt"), Key: p.path("pki", "operators", "up.key"), Authority: p.path("pki", "root.crt"),
	}
}

func exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return err == nil
}
