package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/api/periplus/v1/periplusv1connect"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/trust"
)

const (
	plane     = "periplus.global"
	meshPort  = ":15012"
	raftPort  = ":15013"
	adminPort = ":15014"
	agentPort = ":15010"
)

func domain() spiffeid.TrustDomain { return spiffeid.RequireTrustDomainFromString(plane) }

// step of a script.
type step struct {
	what string
	do   func(w *world)
}

// play builds the usual world, follows the script, and checks the invariants at the end.
func play(t *testing.T, script ...step) {
	t.Helper()
	simulate(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.close()
		w.build()
		for _, s := range script {
			w.now(s.what)
			s.do(w)
		}
		w.now("afterwards")
		w.settle()
	})
}

// slots bounds how many worlds there are at a time: a test in a bubble gives up its turn of testing's own -parallel.
var slots = make(chan struct{}, 2)

// simulate runs f in a bubble of its own, beside others.
func simulate(t *testing.T, f func(t *testing.T)) {
	t.Parallel()
	slots <- struct{}{}
	defer func() { <-slots }()
	synctest.Test(t, f)
}

// world is the mesh and everybody in it. The test's goroutine owns it.
type world struct {
	t        *testing.T
	dir      string
	network  *memnet.Network
	began    time.Time
	at       atomic.Pointer[string] // what the script is at
	issuer   *pki.Issuer
	operator *tls.Certificate

	controllers []*controller
	clusters    []*cluster
	clients     []*client
	invariants  invariants
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), network: new(memnet.Network), began: time.Now()}
	w.now("start")
	w.invariants = invariants{w: w, digests: map[revision]digest{}}
	ids := []string{"c1", "c2", "c3"}
	w.must(pki.Init(w.pki(), plane, ids, []string{"ada"}))
	base := filepath.Join(w.pki(), "operators", "ada")
	pair, err := tls.LoadX509KeyPair(base+".crt", base+".key")
	w.must(err)
	w.operator = &pair
	w.issuer, err = pki.Load(filepath.Join(w.pki(), ids[0]))
	w.must(err)
	for _, id := range ids {
		w.controllers = append(w.controllers, &controller{w: w, id: id})
	}
	return w
}

func (w *world) pki() string { return filepath.Join(w.dir, "pki") }

// build starts the usual mesh: three controllers, and three clusters of which two share a network. Each cluster has
// a gateway, two endpoints of catalog, a sidecar, and a client that knows the controllers only.
func (w *world) build() {
	for _, c := range w.controllers {
		c.start()
	}
	w.until("the controllers are ready", time.Minute, w.replicasAgree)
	for i, place := range []struct{ name, region, network, cidr string }{
		{"west", "eu", "flat", "10.1.0.0/16"}, {"east", "us", "flat", "10.2.0.0/16"}, {"south", "asia", "island", "10.3.0.0/16"},
	} {
		c := w.newCluster(place.name, place.region, place.network, place.cidr)
		c.populate()
		c.direct("direct-"+c.name, w.controllers[i%len(w.controllers)])
	}
	w.settle()
}

// populate registers a cluster and starts what it usually has.
func (c *cluster) populate() {
	c.register()
	c.start()
	c.endpoint("catalog-1")
	c.endpoint("catalog-2")
	c.gateway("gw-1")
	c.sidecar("storefront")
}

// close ends everything; a synctest bubble fails if anything is left.
func (w *world) close() {
	for _, c := range w.clients {
		c.process.stop()
	}
	for _, c := range w.clusters {
		c.close()
	}
	for _, c := range w.controllers {
		if c.up() {
			c.process.stop()
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("[%s] %v", w.where(), err)
	}
}

func (w *world) errorf(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("[%s] %s", w.where(), fmt.Sprintf(format, args...))
}

// now names what the script is at, for messages.
func (w *world) now(what string) { w.at.Store(&what) }

func (w *world) where() string { return fmt.Sprintf("%s, %s", time.Since(w.began), *w.at.Load()) }

// until waits for holds to have nothing to object to.
func (w *world) until(what string, limit time.Duration, holds func() error) {
	w.t.Helper()
	var err error
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	w.t.Fatalf("[%s] not within %s: %s: %v", w.where(), limit, what, err)
}

// controller returns one by its name.
func (w *world) controller(id string) *controller {
	for _, c := range w.controllers {
		if c.id == id {
			return c
		}
	}
	panic("no controller " + id)
}

// cluster returns one by its name.
func (w *world) cluster(name string) *cluster {
	for _, c := range w.clusters {
		if c.name == name {
			return c
		}
	}
	panic("no cluster " + name)
}

// admin is the API for operators.
type admin struct {
	clusters periplusv1connect.ClusterServiceClient
	mesh     periplusv1connect.MeshServiceClient
	policies periplusv1connect.PolicyServiceClient
}

// ask calls the admin API of whichever controller answers.
func (w *world) ask(call func(context.Context, admin) error) error {
	var err error
	for _, c := range w.controllers {
		if c.up() {
			if err = w.askAt(c, call); err == nil {
				return nil
			}
		}
	}
	return err
}

func (w *world) askAt(c *controller, call func(context.Context, admin) error) error {
	m := &trust.Material{Certificate: w.operator, Bundles: map[spiffeid.TrustDomain][]*x509.Certificate{domain(): w.issuer.Roots()}}
	dial := w.network.From("operator")
	transport := &http.Transport{
		TLSClientConfig: trust.ClientConfig(trust.FixedSource(m), peer.OnlyController(domain(), "")), DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client, base := &http.Client{Transport: transport}, "https://"+c.id+adminPort
	return call(ctx, admin{
		periplusv1connect.NewClusterServiceClient(client, base), periplusv1connect.NewMeshServiceClient(client, base),
		periplusv1connect.NewPolicyServiceClient(client, base),
	})
}

// process is one program on a host of its own.
type process struct {
	w       *world
	host    string
	network func(ctx context.Context, address string) (net.Conn, error)
	dead    atomic.Bool
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// run starts a program; it may return only when its context is done.
func (w *world) run(host string, program func(ctx context.Context, p *process) error) *process {
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{w: w, host: host, network: w.network.From(host), cancel: cancel}
	p.running.Go(func() {
		if err := program(ctx, p); err != nil && ctx.Err() == nil && !p.dead.Load() {
			w.errorf("%s ended by itself: %v", host, err)
		}
	})
	return p
}

func (p *process) dial(ctx context.Context, address string) (net.Conn, error) {
	if p.dead.Load() {
		return nil, net.ErrClosed
	}
	return p.network(ctx, address)
}

// stop ends the program as SIGTERM does.
func (p *process) stop() {
	p.cancel()
	p.running.Wait()
}

// kill ends it as SIGKILL does, as far as anybody else can tell: not another byte is heard of it.
func (p *process) kill() {
	p.dead.Store(true)
	p.w.network.Kill(p.host)
	p.stop()
}

func (w *world) listen(address string) net.Listener {
	l, err := w.network.Listen(address)
	w.must(err)
	return l
}

func logger(who string) *slog.Logger {
	if os.Getenv("PERIPLUS_TEST_LOG") == "" {
		return slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("who", who)
}

// cut cuts a host off from others, and returns what heals it.
func (w *world) cut(host string, others ...string) (heal func()) {
	for _, other := range others {
		w.network.Cut(host, other)
	}
	return func() {
		for _, other := range others {
			w.network.Heal(host, other)
		}
	}
}
