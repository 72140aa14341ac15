package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Config of the registry.
type Config struct {
	// Table takes what the workloads become, in the layer of [own.Workloads].
	Table *own.Table
	// Cluster is the own cluster, as registered; never nil.
	Cluster func() *mesh.Cluster
	// GracePeriod is how long an endpoint whose stream was lost stays listed, unhealthy; 0: 10 s.
	GracePeriod time.Duration
	// RestorePeriod is how long an endpoint from disk stays as it was, until it announces itself, from when it can; 0: 3 x
	// GracePeriod.
	RestorePeriod time.Duration
	Log           *slog.Logger
	Metrics       prometheus.Registerer
}

func (c *Config) validate() error {
	if c.Table == nil || c.Cluster == nil || c.Log == nil || c.Metrics == nil {
		return fmt.Errorf("workloads: table, cluster, log and metrics are needed")
	}
	if c.GracePeriod <= 0 {
		c.GracePeriod = 10 * time.Second
	}
	if c.RestorePeriod <= 0 {
		c.RestorePeriod = 3 * c.GracePeriod
	}
	return nil
}

// name is what a holder holds. Gateways have no namespace.
type name struct{ namespace, name string }

// session is one stream. It is compared by address.
type session struct {
	identity spiffeid.ID
	names    map[name]bool
	replaced chan struct{} // closed when a newer stream of the same identity took over
}

// holder is a workload or gateway, connected or not.
type holder struct {
	identity spiffeid.ID
	session  *session // nil: no stream
	restored bool     // from disk, not heard of yet
	draining bool
	expires  time.Time // without a stream; zero: not yet
	objects  []mesh.Object
	ports    map[mesh.ServiceName][]mesh.ServicePort
}

// Registry is everybody that announced itself. Safe for concurrent use.
type Registry struct {
	config  Config
	metrics *metrics
	synced  chan struct{}
	serving chan struct{} // closed once somebody can announce itself

	mu      sync.Mutex
	holders map[name]*holder
	members map[mesh.ServiceName]map[name]bool // who serves it
	frozen  bool
}

// New returns an empty registry.
func New(c Config) (*Registry, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Registry{
		config: c, metrics: newMetrics(c.Metrics), synced: make(chan struct{}), serving: make(chan struct{}),
		holders: map[name]*holder{}, members: map[mesh.ServiceName]map[name]bool{},
	}, nil
}

// Synced is closed once whoever is there has had the time to announce itself: only then "not there" means gone.
func (r *Registry) Synced() <-chan struct{} { return r.synced }

// Run removes what has expired, until ctx is done.
func (r *Registry) Run(ctx context.Context) error {
	ticker := time.NewTicker(min(r.config.GracePeriod/4+1, 250*time.Millisecond))
	defer ticker.Stop()
	serving := r.serving
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-serving:
			serving, settled = nil, time.After(r.config.RestorePeriod)
		case <-settled:
			close(r.synced)
		case now := <-ticker.C:
			r.expire(now)
		}
	}
}

// Freeze makes lost streams mean nothing from now on: the agent is going away, not the workloads.
func (r *Registry) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.frozen = true
}

// Serving starts the time in which those that were restored are to announce themselves: before, they could not. Call it
// once.
func (r *Registry) Serving(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.holders {
		if h.restored {
			h.expires = now.Add(r.config.RestorePeriod)
		}
	}
	close(r.serving)
}

// Restore takes the layer as it was on disk. Call it before Serving.
func (r *Registry) Restore(objects []mesh.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	services := map[mesh.ServiceName]*mesh.Service{}
	for _, object := range objects {
		if service, ok := object.(*mesh.Service); ok {
			services[service.Name] = service
		}
	}
	for _, object := range objects {
		switch o := object.(type) {
		case *mesh.Gateway:
			r.restored(name{"", o.Name}).objects = []mesh.Object{o}
		case *mesh.EndpointSlice:
			h := r.restored(name{o.Service.Namespace, o.Slice})
			h.objects = append(h.objects, o)
			h.ports[o.Service] = portsOf(services[o.Service], o)
			r.join(name{o.Service.Namespace, o.Slice}, h)
		}
	}
	r.config.Table.Replace(own.Workloads, objects)
	r.count()
}

func (r *Registry) restored(n name) *holder {
	h := r.holders[n]
	if h == nil {
		h = &holder{restored: true, ports: map[mesh.ServiceName][]mesh.ServicePort{}}
		r.holders[n] = h
	}
	return h
}

// portsOf are the ports of service that slice serves; none if the service came from elsewhere.
func portsOf(service *mesh.Service, slice *mesh.EndpointSlice) (out []mesh.ServicePort) {
	if service == nil || len(slice.Endpoints) == 0 {
		return nil
	}
	for _, port := range service.Ports {
		if _, ok := slice.Endpoints[0].Ports[port.Name]; ok {
			out = append(out, port)
		}
	}
	return out
}

// open begins a session of identity.
func (r *Registry) open(identity spiffeid.ID) *session {
	return &session{identity: identity, names: map[name]bool{}, replaced: make(chan struct{})}
}

// Why a session may not hold a name.
var (
	errTaken    = errors.New("is connected under that name: give each workload a name of its own")
	errReplaced = errors.New("a newer stream of the same identity announced the same name")
)

// hold makes s the holder of n, with what it announced. It returns errTaken if another identity is connected under
// that name, and errReplaced if s has lost its own to a newer session: it must not take it back.
func (r *Registry) hold(s *session, n name, a *announced) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-s.replaced:
		return errReplaced
	default:
	}
	old := r.holders[n]
	if old != nil && old.session != nil && old.session != s {
		if old.identity != s.identity {
			r.metrics.refused.WithLabelValues("name_taken").Inc()
			return fmt.Errorf("name %q is held by %q, which %w", n.name, old.identity, errTaken)
		}
		r.config.Log.Warn("workload announced again by a newer stream", "endpoint", n.name, "peer", s.identity)
		close(old.session.replaced)
		old.session.names = map[name]bool{}
	}
	for other := range s.names {
		if other != n {
			r.remove(other) // it changed its name
		}
	}
	s.names = map[name]bool{n: true}
	r.replace(n, &holder{identity: s.identity, session: s, draining: a.draining, objects: a.objects, ports: a.ports})
	return nil
}

// close ends s. What it held becomes unhealthy, or goes if it was draining.
func (r *Registry) close(s *session, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.frozen {
		return
	}
	for n := range s.names {
		h := r.holders[n]
		if h.draining {
			r.config.Log.Info("workload drained", "endpoint", n.name, "peer", s.identity)
			r.remove(n)
			continue
		}
		r.config.Log.Warn("workload lost", "endpoint", n.name, "peer", s.identity, "removed_in", r.config.GracePeriod)
		lost := *h
		lost.session, lost.expires, lost.objects = nil, now.Add(r.config.GracePeriod), unhealthy(h.objects)
		r.replace(n, &lost)
	}
	s.names = nil
	r.extend(now)
}

// massMinimum is how few lost workloads are never taken for the agent's loss.
const massMinimum = 3

// extend gives those that are lost more time if they are most of all: workloads do not end together, an agent's network
// does, and proxies that take nobody for healthy still go to whom is listed.
func (r *Registry) extend(now time.Time) {
	var lost []*holder
	for _, h := range r.holders {
		if h.session == nil && !h.restored {
			lost = append(lost, h)
		}
	}
	if len(lost) < massMinimum || 2*len(lost) <= len(r.holders) {
		return
	}
	r.config.Log.Warn("most workloads are lost together: they stay listed for longer", "endpoints", len(lost), "removed_in", r.config.RestorePeriod)
	for _, h := range lost {
		h.expires = now.Add(r.config.RestorePeriod)
	}
}

func (r *Registry) expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n, h := range r.holders {
		if h.session == nil && !h.expires.IsZero() && now.After(h.expires) {
			r.config.Log.Info("workload removed", "endpoint", n.name, "peer", h.identity)
			r.remove(n)
		}
	}
	r.count()
}

func (r *Registry) remove(n name) { r.replace(n, nil) }

// replace makes h, or nobody, the holder of n, and writes what that changes.
func (r *Registry) replace(n name, h *holder) {
	var d mesh.Delta
	gone := map[mesh.Key]bool{}
	old := r.holders[n]
	if old == nil {
		old = &holder{}
	}
	for _, object := range old.objects {
		gone[object.Key()] = true
	}
	for service := range old.ports {
		delete(r.members[service], n)
	}
	delete(r.holders, n)
	if h == nil {
		h = &holder{}
	} else {
		r.holders[n] = h
	}
	r.join(n, h)
	for _, object := range h.objects {
		delete(gone, object.Key())
	}
	d.Upserts = append(d.Upserts, h.objects...)
	d.Deletes = slices.Sorted(maps.Keys(gone))
	for service := range differ(old.ports, h.ports) {
		r.service(service, &d)
	}
	r.config.Table.Apply(own.Workloads, d)
}

func (r *Registry) join(n name, h *holder) {
	for service := range h.ports {
		if r.members[service] == nil {
			r.members[service] = map[name]bool{}
		}
		r.members[service][n] = true
	}
}

// differ are the services that are in one of the two only, or with other ports.
func differ(a, b map[mesh.ServiceName][]mesh.ServicePort) map[mesh.ServiceName]bool {
	out := map[mesh.ServiceName]bool{}
	for service, ports := range a {
		if other, ok := b[service]; !ok || !slices.Equal(ports, other) {
			out[service] = true
		}
	}
	for service := range b {
		if _, ok := a[service]; !ok {
			out[service] = true
		}
	}
	return out
}

// service adds to d what name is now, by those who serve it.
func (r *Registry) service(service mesh.ServiceName, d *mesh.Delta) {
	if len(r.members[service]) == 0 {
		delete(r.members, service)
	}
	cluster := r.config.Table.Owner().Cluster
	if ports := r.portsOf(service, name{}); len(ports) > 0 {
		d.Upserts = append(d.Upserts, &mesh.Service{Name: service, Cluster: cluster, Ports: ports})
		return
	}
	d.Deletes = append(d.Deletes, mesh.ServiceKey(service, cluster))
}

// portsOf is the union of the ports of everybody who serves service, but for one; in order of their names, so that
// it does not depend on who came first.
func (r *Registry) portsOf(service mesh.ServiceName, except name) (out []mesh.ServicePort) {
	names := slices.SortedFunc(maps.Keys(r.members[service]), func(a, b name) int { return strings.Compare(a.name, b.name) })
	for _, n := range names {
		if n == except {
			continue
		}
		for _, port := range r.holders[n].ports[service] {
			if !slices.Contains(out, port) && conflict(out, port) == nil {
				out = append(out, port)
			}
		}
	}
	return out
}

// conflict tells why port cannot stand beside ports.
func conflict(ports []mesh.ServicePort, port mesh.ServicePort) error {
	for _, other := range ports {
		if other != port && (other.Name == port.Name || other.Port == port.Port) {
			return fmt.Errorf("port %s:%d/%s contradicts %s:%d/%s of the other workloads of the service: give the service to the services file, or drain those first",
				port.Name, port.Port, port.Protocol, other.Name, other.Port, other.Protocol)
		}
	}
	return nil
}

func (r *Registry) count() {
	live, lost, restored := 0, 0, 0
	for _, h := range r.holders {
		switch {
		case h.session != nil:
			live++
		case h.restored:
			restored++
		default:
			lost++
		}
	}
	r.metrics.workloads.WithLabelValues("connected").Set(float64(live))
	r.metrics.workloads.WithLabelValues("lost").Set(float64(lost))
	r.metrics.workloads.WithLabelValues("restored").Set(float64(restored))
}
