package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/internal/watch"
)

// ErrNoMaterial is returned by [Watch] when its context ended before the Workload API gave an SVID.
var ErrNoMaterial = errors.New("workload API gave no SVID")

// Retries towards the Workload API. It is a local socket, so they are frequent: a workload is to have its
// identity within seconds of the API's return.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// FixedSource is a Source whose material never changes.
func FixedSource(material *Material) Source { return watch.New(material) }

// WorkloadSource is a [Source] that follows the SPIFFE Workload API. It is also a prometheus.Collector.
//
// When the API goes away, or gives something unusable, the last material stays in force; once it has
// expired, peers refuse it.
type WorkloadSource struct {
	material watch.Value[*Material]
	first    chan struct{} // closed when material holds the first
	once     sync.Once
	path     string // of the SPIFFE ID to take; "" = the default identity
	log      *slog.Logger
	metrics  workloadMetrics
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu   sync.Mutex
	lost error // guarded by mu; why the stream is down, nil while it is up
}

// Watch connects to the Workload API at socket, unix:///path, and returns once the first SVID and bundles are
// there. Until then it retries, so the API may start later than its workloads; it gives up only when ctx ends
// ([ErrNoMaterial]) or the address is malformed. The source works until ctx ends or Close is called.
func Watch(ctx context.Context, socket string, log *slog.Logger) (*WorkloadSource, error) {
	return WatchAs(ctx, socket, "", log)
}

// WatchAs is Watch for a process that is entitled to several identities: it takes the one with this path, such as
// "/ns/shop/sa/cart", and waits until it is there.
func WatchAs(ctx context.Context, socket, path string, log *slog.Logger) (*WorkloadSource, error) {
	if err := checkSocket(socket); err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancel(ctx)
	client, err := newWorkloadClient(inner, socket)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("workload API %s: %w", socket, err)
	}
	s := &WorkloadSource{first: make(chan struct{}), path: path, log: log.With("socket", socket), cancel: cancel, metrics: newWorkloadMetrics()}
	s.running.Go(func() { s.follow(inner, client) })
	select {
	case <-s.first:
		s.running.Go(func() { s.warn(inner) })
		return s, nil
	case <-ctx.Done():
		s.Close()
		return nil, fmt.Errorf("workload API %s: %w: %w (last: %v)", socket, ErrNoMaterial, ctx.Err(), s.down())
	}
}

// Get returns the latest material and a channel that closes when it is superseded.
func (s *WorkloadSource) Get() (*Material, <-chan struct{}) { return s.material.Get() }

// Close ends the watch and waits for it. The last material stays readable.
func (s *WorkloadSource) Close() error {
	s.cancel()
	s.running.Wait()
	return nil
}

// Describe and Collect make the source a prometheus.Collector.
func (s *WorkloadSource) Describe(ch chan<- *prometheus.Desc) { s.metrics.describe(ch) }
func (s *WorkloadSource) Collect(ch chan<- prometheus.Metric) { s.metrics.collect(ch) }

func checkSocket(socket string) error {
	u, err := url.Parse(socket)
	if err != nil || u.Scheme != "unix" {
		return fmt.Errorf("workload API address %q: want unix:///path", socket)
	}
	if err := workloadapi.ValidateAddress(socket); err != nil {
		return fmt.Errorf("workload API address %q: %w", socket, err)
	}
	return nil
}

func newWorkloadClient(ctx context.Context, socket string) (*workloadapi.Client, error) {
	connect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: firstRetry, Multiplier: 2, Jitter: 0.2, MaxDelay: lastRetry},
		MinConnectTimeout: lastRetry,
	}
	return workloadapi.New(ctx,
		workloadapi.WithAddr(socket),
		workloadapi.WithDialOptions(grpc.WithConnectParams(connect)),
		workloadapi.WithBackoffStrategy(retries{}),
	)
}

// follow keeps one watch open until ctx ends. The client retries by itself but for two codes, which a
// restarting API can send too, so they are retried here.
func (s *WorkloadSource) follow(ctx context.Context, client *workloadapi.Client) {
	defer client.Close()
	for ctx.Err() == nil {
		err := client.WatchX509Context(ctx, s)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("workload API watch ended, starting again", "err", err)
		select {
		case <-time.After(lastRetry):
		case <-ctx.Done():
		}
	}
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (s *WorkloadSource) OnX509ContextUpdate(update *workloadapi.X509Context) {
	material, err := materialOf(update, s.path)
	if err != nil {
		s.OnX509ContextWatchError(err)
		return
	}
	s.setDown(nil)
	leaf := material.Certificate.Leaf
	s.metrics.updates.Inc()
	s.metrics.expiry.Set(float64(leaf.NotAfter.Unix()))
	s.metrics.domains.Set(float64(len(material.Bundles)))
	s.log.Info("new identity material", "id", material.ID, "expires", leaf.NotAfter, "domains", len(material.Bundles))
	s.material.Set(material)
	s.once.Do(func() { close(s.first) })
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher. Only the first of a row is logged.
func (s *WorkloadSource) OnX509ContextWatchError(err error) {
	if status.Code(err) == codes.Canceled {
		return
	}
	s.metrics.failures.Inc()
	if s.setDown(err) {
		s.log.Warn("workload API: keeping the last identity material, retrying", "err", err)
	}
}

// setDown reports whether the state or its cause changed.
func (s *WorkloadSource) setDown(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := (err == nil) != (s.lost == nil) || err != nil && status.Code(err) != status.Code(s.lost)
	s.lost = err
	return changed
}

func (s *WorkloadSource) down() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// choose takes the SVID with the path, or the first, which is the default (SPIFFE Workload API, section 5.3).
func choose(update *workloadapi.X509Context, path string) (*x509svid.SVID, error) {
	var had []spiffeid.ID
	for _, svid := range update.SVIDs {
		if path == "" || svid.ID.Path() == path {
			return svid, nil
		}
		had = append(had, svid.ID)
	}
	return nil, fmt.Errorf("no SVID with path %q among %q: is a registration entry missing?", path, had)
}

func materialOf(update *workloadapi.X509Context, path string) (*Material, error) {
	svid, err := choose(update, path)
	if err != nil {
		return nil, err
	}
	bundles := make(map[spiffeid.TrustDomain][]*x509.Certificate)
	for _, bundle := range update.Bundles.Bundles() {
		bundles[bundle.TrustDomain()] = bundle.X509Authorities()
	}
	if len(bundles[svid.ID.TrustDomain()]) == 0 {
		return nil, fmt.Errorf("SVID %q came without the bundle of its own trust domain", svid.ID)
	}
	certificate := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return &Material{ID: svid.ID, Certificate: certificate, Bundles: bundles}, nil
}

// retries is a workloadapi.BackoffStrategy: doubling from firstRetry to lastRetry.
type retries struct{}

func (retries) NewBackoff() workloadapi.Backoff { return &doubling{next: firstRetry} }

type doubling struct{ next time.Duration }

func (d *doubling) Next() time.Duration {
	wait := d.next
	d.next = min(2*d.next, lastRetry)
	return wait
}

func (d *doubling) Reset() { d.next = firstRetry }
