package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sync/errgroup"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/announce"
	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/builder"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/health"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/proxy/http2"
	"github.com/periplus-mesh/periplus/proxy/inbound"
	"github.com/periplus-mesh/periplus/proxy/outbound"
	"github.com/periplus-mesh/periplus/proxy/telemetry"
	"github.com/periplus-mesh/periplus/trust"
)

// sidecar is a running proxy.
type sidecar struct {
	config Config
	source trust.Source
	node   *corev3.Node
	began  time.Time

	mu      sync.Mutex // guards builder
	builder *builder.Builder
	current watch.Value[*config.Config] // nil until the first update

	clusters  *forward.Clusters
	in, out   half
	inbound   *inbound.Inbound
	telemetry *telemetry.Telemetry
	metrics   *metrics
	pipes     *splice.Pipes

	plane        watch.Value[adsclient.Status]
	app          watch.Value[appState]
	ready        watch.Value[bool] // configuration is there and all its listeners are bound
	phase        watch.Value[phase]
	announcement watch.Value[*periplusv1.AnnounceRequest]
	announced    watch.Value[announce.Status]
}

// half is one direction. They drain one after the other: a request that runs may still call out.
type half struct {
	forwarder *forward.Forwarder
	http2     *http2.Server
	listeners *listeners
	// closeIdle ends what neither server knows yet; nil: there is nothing of the kind.
	closeIdle func()
}

// phase is what operators and signals have asked for.
type phase struct{ failed, draining, quit bool }

// Run is a sidecar until ctx ends, or somebody posts /quitquitquit; it then drains and returns nil. An error is a
// mistake in c, or an identity that never came.
func Run(ctx context.Context, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	// What the drain needs outlives ctx.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	source, err := identity(ctx, life, &c)
	if err != nil || source == nil {
		return err
	}
	s, err := newSidecar(life, c, source)
	if err != nil {
		return err
	}
	defer s.pipes.Close()
	group, life := errgroup.WithContext(life)
	for _, part := range s.parts() {
		group.Go(func() error {
			if err := part(life); life.Err() == nil {
				return err
			}
			return nil // it ended because the sidecar does
		})
	}
	group.Go(func() error {
		defer end()
		s.untilQuit(ctx, life)
		s.drain(life)
		return nil
	})
	return group.Wait()
}

// identity waits for the first SVID; nil without an error: ctx ended before.
func identity(ctx, life context.Context, c *Config) (trust.Source, error) {
	if c.Source != nil {
		return c.Source, nil
	}
	waiting, cancel := context.WithCancel(life)
	stop := context.AfterFunc(ctx, cancel)
	source, err := trust.Watch(waiting, c.WorkloadSocket, c.Log)
	if !stop() || ctx.Err() != nil {
		cancel()
		return nil, nil
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	context.AfterFunc(life, cancel)
	_ = c.Metrics.Register(source)
	return source, nil
}

func newSidecar(life context.Context, c Config, source trust.Source) (*sidecar, error) {
	s := &sidecar{config: c, source: source, builder: builder.New(), began: time.Now(), pipes: splice.NewPipes(64)}
	material, _ := source.Get()
	own := material.ID.String()
	var err error
	if s.node, err = c.node(); err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	if s.metrics, err = newMetrics(s); err != nil {
		return nil, fmt.Errorf("sidecar: metrics: %w", err)
	}
	if s.telemetry, err = telemetry.New(s.telemetryConfig(own)); err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	buffers := &http1.Buffers{}
	s.clusters = forward.NewClusters(forward.ClustersConfig{Source: source, Buffers: buffers, Log: c.Log})
	s.in, s.out = s.half(life, buffers, own), s.half(life, buffers, own)
	s.inbound = inbound.New(inbound.Config{Forwarder: s.in.forwarder, Source: source, H2: s.in.http2, Current: &s.current, Log: c.Log})
	out := outbound.New(outbound.Config{Forwarder: s.out.forwarder, H2: s.out.http2})
	s.in.listeners.serve, s.in.listeners.inbound, s.out.listeners.serve = s.inbound.ServeConn, true, out.ServeConn
	s.out.closeIdle = out.CloseIdle
	return s, nil
}

func (s *sidecar) half(life context.Context, buffers *http1.Buffers, own string) half {
	log := s.config.Log
	connections, cut := context.WithCancel(life)
	h2 := http2.New(http2.Config{Clusters: s.clusters, Observer: s.telemetry, Own: own, Log: log})
	return half{
		forwarder: forward.New(forward.Config{
			Clusters: s.clusters, Observer: s.telemetry, Buffers: buffers, Pipes: s.pipes, HTTP2: h2, Own: own, Log: log,
		}),
		http2:     h2,
		listeners: &listeners{log: log, ctx: connections, cut: cut, bound: map[string]*bound{}, conns: map[net.Conn]struct{}{}},
	}
}

func (s *sidecar) telemetryConfig(own string) telemetry.Config {
	c := &s.config
	t := telemetry.Config{
		Own: telemetry.Workload{
			Name: c.Name, Namespace: c.namespace(), Principal: own, App: serviceName(c.Service), Version: c.Labels["version"],
			Cluster: c.Cluster, Region: c.Region, Zone: c.Zone,
		},
		Registry: c.Metrics, AccessLog: c.AccessLog, Log: c.Log,
	}
	if c.AccessLogJSON {
		t.Format = telemetry.JSON
	}
	return t
}

// parts are what runs until the sidecar ends.
func (s *sidecar) parts() []func(context.Context) error {
	parts := []func(context.Context) error{
		s.followXDS, s.followReady, s.clusters.Run, s.inbound.Follow, s.in.http2.Run, s.out.http2.Run, s.telemetry.Run, s.checkHealth,
		func(ctx context.Context) error { return s.in.listeners.run(ctx, &s.current) },
		func(ctx context.Context) error { return s.out.listeners.run(ctx, &s.current) },
	}
	if s.config.Agent != "" {
		parts = append(parts, s.report)
	}
	if s.config.Agent != "" && len(s.config.Inbound) > 0 {
		parts = append(parts, s.probeApp, s.announce, func(ctx context.Context) error {
			return announce.Run(ctx, announce.Config{
				Target: announce.Target{Address: s.config.Agent, Authorize: s.authorizeAgent}, Source: s.source,
				Announcement: &s.announcement, Status: &s.announced, Log: s.config.Log,
			})
		})
	}
	if s.config.AdminListener != nil {
		parts = append(parts, s.serveAdmin)
	}
	return parts
}

func (s *sidecar) report(ctx context.Context) error {
	return s.telemetry.Report(ctx, telemetry.ReportConfig{
		Address: s.config.Agent, Authorize: s.authorizeAgent, Source: s.source, Node: s.node, Log: s.config.Log,
		InProgress: s.inProgress,
	})
}

// inProgress are the requests that run on the hosts of other workloads.
func (s *sidecar) inProgress(yield func(telemetry.Running)) {
	for name, cluster := range s.clusters.View().Clusters() {
		if cluster.Set == nil || strings.HasPrefix(name, "inbound|") {
			continue
		}
		for _, h := range cluster.Set.Hosts() {
			if n := h.Active(); n > 0 {
				yield(telemetry.Running{Cluster: name, Region: h.Region, Zone: h.Zone, Subzone: h.Subzone, Priority: uint32(h.Priority), Requests: uint64(n)})
			}
		}
	}
}

// followReady says ready once everything has come, or has had its time to come, and is bound; it stays ready.
func (s *sidecar) followReady(ctx context.Context) error {
	var warm <-chan time.Time
	late := false
	for {
		c, next := s.current.Get()
		in, inNext := s.in.listeners.complete.Get()
		out, outNext := s.out.listeners.complete.Get()
		listening := c != nil && len(c.Listeners) > 0
		if listening && warm == nil {
			warm = time.After(s.config.WarmTime)
		}
		if listening && in == c && out == c && (c.Ready || late) {
			s.config.Log.Info("ready", "late", late)
			s.ready.Set(true)
			return nil
		}
		select {
		case <-next:
		case <-inNext:
		case <-outNext:
		case <-warm:
			late = true
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *sidecar) checkHealth(ctx context.Context) error {
	return health.Run(ctx, health.Config{Clusters: &s.current, Dial: s.dialCheck, Report: s.reportHealth, Log: s.config.Log})
}

// dialCheck connects as the cluster does, without taking one of its connections' places.
func (s *sidecar) dialCheck(ctx context.Context, cluster, address string) (net.Conn, error) {
	c := s.clusters.View().Cluster(cluster)
	if c == nil {
		return nil, fmt.Errorf("cluster %q is gone", cluster)
	}
	if c.TLS == nil && c.Settings.TLS != nil {
		return nil, fmt.Errorf("cluster %q: its tls was refused", cluster)
	}
	if c.TLS == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	return dialTLS(ctx, c.TLS, address)
}

func (s *sidecar) reportHealth(cluster string, endpoint netip.AddrPort, failing bool) {
	c := s.clusters.View().Cluster(cluster)
	if c == nil || c.Set == nil {
		return
	}
	for _, host := range c.Set.Hosts() {
		if host.Address == endpoint.String() && host.Failing() != failing {
			c.Set.SetFailing(host, failing)
		}
	}
}
