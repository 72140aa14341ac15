package eastwest

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/announce"
	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// backlogTime is how long connections that the kernel has already established are still taken when the listener
// is about to close: closing resets them.
const backlogTime = 20 * time.Millisecond

// endpointsWait is Envoy's initial_fetch_timeout: one service without endpoints must not keep out all others.
const endpointsWait = 15 * time.Second

// runner is one Run: the data path and what drives it.
type runner struct {
	config       Config
	gateway      *gateway
	identity     *identity
	xds          watch.Value[adsclient.Status]
	announcement watch.Value[*periplusv1.AnnounceRequest]
	announced    watch.Value[announce.Status]
	table        watch.Value[*table]
	state        watch.Value[state]
	drainNow     context.CancelFunc // as if the context of Run had ended
}

// state of a gateway, in order.
type state string

const (
	starting state = "starting"
	serving  state = "serving"
	draining state = "draining"
)

// Run serves until ctx ends, then drains, and returns nil. Other errors: a configuration that cannot work, an address
// that cannot be listened on, a Workload API address that is malformed.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	r := &runner{config: c, identity: newIdentity(), drainNow: stop}
	r.state.Set(starting)
	r.table.Set(&table{})
	r.gateway = newGateway(c, r.table.Set)
	defer r.gateway.pipes.Close()
	return r.run(ctx)
}

// run ends in two steps: ctx starts the drain; everything else goes on until that is done.
func (r *runner) run(ctx context.Context) error {
	rest, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	group, rest := errgroup.WithContext(rest)
	group.Go(func() error { return r.identity.follow(rest, r.config) })
	group.Go(func() error {
		waiting, cancel := context.WithTimeout(rest, identityWait)
		r.identity.wait(waiting)
		cancel()
		return r.followXDS(rest)
	})
	group.Go(func() error { return r.announceSelf(rest) })
	group.Go(func() error { return r.serveAdmin(rest) })
	group.Go(func() error { r.gateway.tick(rest); return nil })
	group.Go(func() error {
		defer finish()
		return r.serve(ctx, rest)
	})
	return group.Wait()
}

// serve listens once there is something to route by: until then clients are refused and try another gateway.
func (r *runner) serve(ctx, rest context.Context) error {
	if !r.awaitTable(ctx, rest) {
		return nil
	}
	address := netip.AddrPortFrom(r.config.Bind, r.config.Port)
	listener, err := splice.Listen(address)
	if err != nil {
		return fmt.Errorf("gateway listener: %w", err)
	}
	r.config.Log.Info("serving", "address", address, "services", len(r.gateway.tables.latest.Load().upstreams))
	r.state.Set(serving)
	r.announcement.Set(r.config.announcement(periplusv1.Health_HEALTH_HEALTHY))
	connections, cut := context.WithCancel(rest)
	defer cut()
	accepted := make(chan error, 1)
	go func() { accepted <- r.gateway.accept(connections, listener) }()
	select {
	case <-ctx.Done():
		r.drain(rest, listener, accepted)
	case <-rest.Done():
		_ = listener.Close()
		<-accepted
	}
	cut()
	r.gateway.open.Wait()
	r.gateway.pipes.Close()
	return nil
}

// awaitTable is true once there is a whole table, or one that stayed incomplete for endpointsWait.
func (r *runner) awaitTable(ctx, rest context.Context) bool {
	var late <-chan time.Time
	for {
		t, next := r.table.Get()
		if t.whole {
			return true
		}
		if t.listens && late == nil {
			timer := time.NewTimer(endpointsWait)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-next:
		case <-late:
			r.config.Log.Warn("serving although endpoints of some services have not come")
			return true
		case <-ctx.Done():
			return false
		case <-rest.Done():
			return false
		}
	}
}

// drain returns when the last connection has ended, or when DrainTime is over.
func (r *runner) drain(rest context.Context, l *splice.Listener, accepted <-chan error) {
	deadline := time.Now().Add(r.config.DrainTime)
	r.config.Log.Info("draining", "connections", r.gateway.metrics.active.Load(), "until", deadline)
	r.state.Set(draining)
	r.tellDraining(rest)
	sleep(rest, r.config.DrainGrace)
	_ = l.SetDeadline(time.Now().Add(backlogTime))
	<-accepted
	_ = l.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.gateway.open.Wait()
	}()
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-ended:
	case <-rest.Done():
	case <-timer.C:
		r.config.Log.Warn("drain time is over, closing what is left", "connections", r.gateway.metrics.active.Load())
	}
}

// tellDraining returns when the agent has acknowledged it; when there is none to be had, after DrainGrace.
func (r *runner) tellDraining(ctx context.Context) {
	request := r.config.announcement(periplusv1.Health_HEALTH_DRAINING)
	r.announcement.Set(request)
	if r.config.Agent == "" {
		return
	}
	timer := time.NewTimer(r.config.DrainGrace)
	defer timer.Stop()
	for {
		status, next := r.announced.Get()
		if status.Acknowledged == request {
			return
		}
		select {
		case <-next:
		case <-timer.C:
			r.config.Log.Warn("draining, but the agent has not heard of it", "peer", r.config.Agent)
			return
		case <-ctx.Done():
			return
		}
	}
}
