package eastwest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/internal/sni"
	"github.com/periplus-mesh/periplus/internal/splice"
)

const (
	outlierInterval = 5 * time.Second
	// idlePipes are kept for reuse; two are in use by each connection whose bytes move right now.
	idlePipes = 256
	// probeAfter is the age at which a connection is worth keep-alive probes of the endpoint; most do not reach it.
	probeAfter = 15 * time.Second
	// acceptRetry bounds the wait after an accept that failed for want of descriptors or memory.
	acceptRetryMin, acceptRetryMax = 5 * time.Millisecond, time.Second
)

// gateway is the data path.
type gateway struct {
	config  Config
	tables  *tables
	metrics *metrics
	pipes   *splice.Pipes
	open    sync.WaitGroup // connections

	mu      sync.Mutex
	sources map[netip.Addr]int // guarded by mu; only with MaxPerSource
}

func newGateway(c Config, changed func(*table)) *gateway {
	g := &gateway{config: c, metrics: newMetrics(c.Metrics), pipes: splice.NewPipes(idlePipes), sources: map[netip.Addr]int{}}
	g.tables = newTables(func(t *table) {
		g.metrics.services.Set(float64(len(t.upstreams)))
		changed(t)
	})
	return g
}

// accept serves connections until the listener is closed, or its deadline passes. The connections live in ctx.
func (g *gateway) accept(ctx context.Context, l *splice.Listener) error {
	retry := acceptRetryMin
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			retry = acceptRetryMin
			g.admit(ctx, conn)
		case errors.Is(err, net.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		default:
			g.config.Log.Warn("accept", "err", err, "retry", retry)
			if !sleep(ctx, retry) {
				return nil
			}
			retry = min(2*retry, acceptRetryMax)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// admit starts a connection unless it is one too many.
func (g *gateway) admit(ctx context.Context, conn *splice.Socket) {
	source := conn.Remote().Addr()
	if reason := g.enter(source); reason != "" {
		g.reject(conn, reason)
		return
	}
	g.open.Go(func() {
		defer g.leave(source)
		if reason := g.handle(ctx, conn); reason != "" {
			g.reject(conn, reason)
		}
	})
}

// enter counts a connection, or says why there must not be one; leave must follow only the former.
func (g *gateway) enter(source netip.Addr) (rejected string) {
	if !g.allowed(source) {
		return rejectSource
	}
	if g.metrics.active.Add(1) > int64(g.config.MaxConnections) {
		g.metrics.active.Add(-1)
		return rejectLimit
	}
	if g.config.MaxPerSource == 0 {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sources[source] >= g.config.MaxPerSource {
		g.metrics.active.Add(-1)
		return rejectPerSource
	}
	g.sources[source]++
	return ""
}

func (g *gateway) leave(source netip.Addr) {
	g.metrics.active.Add(-1)
	if g.config.MaxPerSource == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sources[source]--; g.sources[source] == 0 {
		delete(g.sources, source)
	}
}

func (g *gateway) allowed(source netip.Addr) bool {
	for _, prefix := range g.config.Sources {
		if prefix.Contains(source) {
			return true
		}
	}
	return len(g.config.Sources) == 0
}

func (g *gateway) reject(conn *splice.Socket, reason string) {
	g.metrics.rejected[reason].Inc()
	_ = conn.Close()
}

// handle passes a connection on until it ends, or returns why it cannot.
func (g *gateway) handle(ctx context.Context, client *splice.Socket) (rejected string) {
	t := g.tables.latest.Load()
	hello, peeked, reason := g.peek(ctx, client, t)
	if reason != "" {
		return reason
	}
	up := g.tables.latest.Load().upstreams[hello.ServerName]
	switch {
	case hello.Encrypted:
		return rejectEncrypted
	case up == nil:
		return rejectUnknown
	}
	host, conn, reason := g.connect(ctx, up, peeked)
	if reason != "" {
		return reason
	}
	defer host.End()
	probe := time.AfterFunc(probeAfter, func() { _ = conn.KeepAlive() })
	defer probe.Stop()
	g.metrics.opened.Inc()
	up.opened.Add(1)
	ended, _ := splice.Run(ctx, client, conn, splice.Config{
		Pipes: g.pipes, IdleTimeout: t.idleTimeout, Sent: &g.metrics.sent, Received: &g.metrics.received,
	})
	g.metrics.closed[ended].Inc()
	return ""
}

// peek is bounded in time and ends with ctx.
func (g *gateway) peek(ctx context.Context, client *splice.Socket, t *table) (hello sni.Hello, peeked []byte, rejected string) {
	timeout := g.config.HelloTimeout
	if t.helloTimeout > 0 {
		timeout = min(timeout, t.helloTimeout)
	}
	_ = client.SetReadDeadline(time.Now().Add(timeout))
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	hello, peeked, err := sni.Peek(client)
	if !stop() {
		return hello, nil, rejectClosed
	}
	if err != nil {
		return hello, nil, helloRejection(err)
	}
	_ = client.SetReadDeadline(time.Time{})
	return hello, peeked, ""
}

// connect reaches an endpoint and sends it the hello, which a new connection's send buffer takes whole. If that fails
// it tries others; nothing has been sent to those.
// The caller must End the host.
func (g *gateway) connect(ctx context.Context, up *upstream, hello []byte) (*balance.Host, *splice.Socket, string) {
	var tried []*balance.Host
	exclude := func(h *balance.Host) bool { return contains(tried, h) }
	timeout := min(g.config.ConnectTimeout, up.connectTimeout)
	for range g.config.Attempts {
		host, err := up.hosts.Pick(balance.Request{Exclude: exclude})
		if err != nil || exclude(host) {
			break
		}
		host.Begin()
		conn, sent, err := g.dial(ctx, host, timeout, hello)
		g.metrics.sent.Add(int64(sent))
		if err == nil {
			up.hosts.Report(host, balance.Success, time.Now())
			return host, conn, ""
		}
		host.End()
		switch {
		case ctx.Err() != nil:
			return nil, nil, rejectClosed
		case sent > 0:
			return nil, nil, rejectConnect
		}
		g.failed(up, host, err)
		tried = append(tried, host)
	}
	if len(tried) == 0 {
		return nil, nil, rejectNoHost
	}
	return nil, nil, rejectConnect
}

func (g *gateway) dial(ctx context.Context, h *balance.Host, timeout time.Duration, hello []byte) (*splice.Socket, int, error) {
	address, err := netip.ParseAddrPort(h.Address)
	if err != nil {
		return nil, 0, err
	}
	return splice.Connect(ctx, address, time.Now().Add(timeout), hello)
}

func (g *gateway) failed(up *upstream, host *balance.Host, err error) {
	g.metrics.connectFailures.Inc()
	if own(err) {
		g.config.Log.Warn("no connection to an endpoint", "service", up.name, "endpoint", host.Address, "err", err)
		return
	}
	before := host.Ejected()
	up.hosts.Report(host, balance.LocalFailure, time.Now())
	if host.Ejected() && !before {
		g.config.Log.Warn("endpoint rests: it could not be reached", "service", up.name, "endpoint", host.Address, "err", err)
	}
}

// own tells that this process, not the endpoint, has run out of something: were the endpoints blamed, a gateway with too
// many clients would take healthy ones out of use.
func own(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EADDRNOTAVAIL)
}

func contains(hosts []*balance.Host, h *balance.Host) bool {
	for _, other := range hosts {
		if other.Address == h.Address {
			return true
		}
	}
	return false
}

// tick ends ejections whose time is over.
func (g *gateway) tick(ctx context.Context) {
	for sleep(ctx, outlierInterval) {
		for _, up := range g.tables.latest.Load().upstreams {
			up.hosts.Tick(time.Now())
		}
	}
}
