package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

// Config of a follower.
type Config struct {
	Owner own.Owner
	Store *mesh.Store
	// Targets are the controllers, the preferred first.
	Targets []adsclient.Target
	// TargetUpdates replaces Targets whenever it holds any; nil: they stay.
	TargetUpdates *watch.Value[[]adsclient.Target]
	Source        trust.Source
	// Dial connects to a controller; nil: TCP.
	Dial ads.DialFunc
	// DiskCache is the folder of the copy; "" keeps none.
	DiskCache string
	// Anchors is the file of the bundles of trust domains that were removed, by which they are known again; "": none.
	Anchors string
	// Forget are removed trust domains whose next bundle is taken on its word, as that of one never seen.
	Forget []spiffeid.TrustDomain
	// Continuity tells why next may not replace held as a trust domain's bundle; held is nil for a new domain.
	Continuity func(held, next *mesh.Federation) error
	// OnCluster is told of the own cluster's registration. An error refuses it.
	OnCluster func(*mesh.Cluster) error
	Log       *slog.Logger
	Metrics   prometheus.Registerer
}

func (c *Config) validate() error {
	switch {
	case c.Store == nil || len(c.Targets) == 0 || c.Source == nil:
		return errors.New("follow: store, targets and source are needed")
	case c.Continuity == nil || c.OnCluster == nil || c.Log == nil || c.Metrics == nil:
		return errors.New("follow: continuity, onCluster, log and metrics are needed")
	}
	return nil
}

// Status of the feed, for people.
type Status struct {
	Controller string            `json:"controller,omitempty"` // "": none
	Since      time.Time         `json:"since,omitzero"`
	FromDisk   bool              `json:"fromDisk"`          // nothing was heard from a controller yet
	Updated    time.Time         `json:"updated,omitzero"`  // the last response
	Refused    map[string]string `json:"refused,omitempty"` // key -> reason
}

// Follower follows. Apply is called from one goroutine.
type Follower struct {
	config  Config
	metrics *metrics
	client  watch.Value[adsclient.Status]

	once   sync.Once
	synced chan struct{}

	anchors *anchors
	refused map[string]string // copied on write: the debug page reads it
	status  watch.Value[Status]
}

// New checks the configuration.
func New(c Config) (*Follower, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	anchors, err := openAnchors(c.Anchors, c.Forget)
	if err != nil {
		return nil, err
	}
	return &Follower{config: c, metrics: newMetrics(c.Metrics), synced: make(chan struct{}), anchors: anchors}, nil
}

// Synced is closed once the other clusters are known, all of them: from a controller or from disk.
func (f *Follower) Synced() <-chan struct{} { return f.synced }

// Status is the latest. Its map must not be written.
func (f *Follower) Status() Status {
	s, client := f.status.Latest(), f.client.Latest()
	s.Controller, s.Since = client.Target, client.Since
	return s
}

// quietAfter is how long a controller that is connected has nothing to add to what may be a part: then it was all.
const quietAfter = 5 * time.Second

// Run follows until ctx is done.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() { f.settle(ctx) })
	defer waiting.Wait()
	defer cancel()
	err := adsclient.Run(ctx, adsclient.Config{
		Targets: f.config.Targets, TargetUpdates: f.config.TargetUpdates, Source: f.config.Source, Wildcard: []xds.Type{xds.MeshObject},
		Node:  &corev3.Node{Id: "agent~" + string(f.config.Owner.Cluster), Cluster: "periplus-agent"},
		Apply: f.Apply, DiskCache: f.config.DiskCache, Dial: f.config.Dial, Log: f.config.Log, Metrics: f.config.Metrics,
		Status: &f.client,
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// settle closes synced when a controller has said something that may be a part, and nothing more for a while.
func (f *Follower) settle(ctx context.Context) {
	for {
		client, moved := f.client.Get()
		status, heard := f.status.Get()
		var quiet <-chan time.Time
		if client.Target != "" && !status.Updated.IsZero() {
			quiet = time.After(quietAfter)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.synced:
			return
		case <-moved:
		case <-heard:
		case <-quiet:
			f.sync()
			return
		}
	}
}

func (f *Follower) sync() { f.once.Do(func() { close(f.synced) }) }

// Apply commits what of u is good, and returns an error that names what is not.
func (f *Follower) Apply(u adsclient.Update) error {
	snapshot, _ := f.config.Store.Latest()
	refused := map[string]string{}
	var d mesh.Delta
	var decoder meshpb.Decoder
	for _, item := range u.Upserts {
		object, err := f.judge(snapshot, &decoder, item, u.FromDisk)
		switch {
		case err != nil:
			refused[item.Name] = err.Error()
		case object != nil:
			d.Upserts = append(d.Upserts, object)
		}
	}
	for _, name := range u.Removed {
		if key := mesh.Key(name); f.removable(key) {
			d.Deletes = append(d.Deletes, key)
			f.kept(f.anchors.remove(key))
		}
	}
	if len(d.Upserts)+len(d.Deletes) > 0 {
		f.config.Store.Update(d)
	}
	f.note(u, refused)
	if u.FromDisk || !cut(u) {
		f.sync()
	}
	return nack(refused)
}

// cut tells whether more may follow u at once. There is always something: every agent is told of its own cluster. But
// controllers cut what they send at [xds.MaxResponseBytes], and no response says whether it is the last: the end is one
// with room for another object.
func cut(u adsclient.Update) bool {
	size := 0
	for _, item := range u.Upserts {
		size += len(item.Name) + len(item.Body)
	}
	return size > xds.MaxResponseBytes/2
}

// judge returns the object, nil if it is the one held, or why it is refused.
func (f *Follower) judge(snapshot *mesh.Snapshot, decoder *meshpb.Decoder, item adsclient.Item, fromDisk bool) (mesh.Object, error) {
	object, err := decoder.Unmarshal(item.Body)
	if err != nil {
		return nil, err
	}
	key := object.Key()
	switch {
	case string(key) != item.Name:
		return nil, fmt.Errorf("resource is named so but is %s", key)
	case !slices.Contains(kinds, key.Kind()):
		return nil, fmt.Errorf("kind %q is not for agents", key.Kind())
	case key == mesh.FederationKey(f.config.Owner.Domain.Name()):
		return nil, nil // every agent is sent every domain's; the own one is known first-hand
	case f.config.Owner.Owns(key):
		return nil, fmt.Errorf("only the agent of cluster %q says what is there", f.config.Owner.Cluster)
	}
	if o, ok := object.(*mesh.Cluster); ok && o.ID == f.config.Owner.Cluster {
		return nil, f.config.OnCluster(o) // its owner compares it, and writes it to the store
	}
	held, ok := snapshot.Get(key)
	if ok && meshpb.Digest(held) == meshpb.DigestOf(item.Body) {
		return nil, nil
	}
	o, ok := object.(*mesh.Federation)
	if !ok {
		return object, nil
	}
	if fromDisk {
		f.kept(f.anchors.accept(o)) // was judged before it was written; its signature may have expired since
		return o, nil
	}
	return o, f.federation(key, held, o)
}

// kinds that an agent follows; data, never written.
var kinds = []mesh.Kind{
	mesh.KindCluster, mesh.KindService, mesh.KindEndpoints, mesh.KindSummary, mesh.KindGateway, mesh.KindPolicy, mesh.KindFederation,
}

// federation holds every bundle against the last one that was accepted of its domain, even if that was removed in
// between: else removing and adding again would be the way around continuity.
func (f *Follower) federation(key mesh.Key, held mesh.Object, next *mesh.Federation) error {
	anchor := f.anchors.held[key]
	if object, ok := held.(*mesh.Federation); ok {
		anchor = object
	}
	if err := f.config.Continuity(anchor, next); err != nil {
		f.metrics.untrusted.Inc()
		f.config.Log.Error("bundle refused, the old one stays: a controller or the domain's owner may be compromised",
			"trust_domain", next.TrustDomain.Name(), "cluster", next.Cluster, "err", err)
		return err
	}
	f.kept(f.anchors.accept(next))
	return nil
}

// kept tells of anchors that are in memory alone.
func (f *Follower) kept(err error) {
	if err != nil {
		f.config.Log.Error("bundles of removed trust domains were not written: after a restart those are taken on their word", "err", err)
	}
}

// removable tells whether a controller may remove key: what is the own cluster's stays.
func (f *Follower) removable(key mesh.Key) bool {
	return !f.config.Owner.Owns(key) && key != mesh.ClusterKey(f.config.Owner.Cluster)
}

// note remembers what is refused until the object is good or gone.
func (f *Follower) note(u adsclient.Update, refused map[string]string) {
	all := map[string]string{}
	for name, reason := range f.refused {
		all[name] = reason
	}
	for _, item := range u.Upserts {
		delete(all, item.Name)
	}
	for _, name := range u.Removed {
		delete(all, name)
	}
	for name, reason := range refused {
		all[name] = reason
		f.metrics.refused.Inc()
		f.config.Log.Error("mesh object refused; the last good one stays", "key", name, "err", reason)
	}
	f.refused = all
	f.metrics.refusedNow.Set(float64(len(all)))
	now := time.Now()
	if !u.FromDisk {
		f.metrics.updated.Set(float64(now.Unix()))
	}
	f.status.Set(Status{FromDisk: u.FromDisk, Updated: now, Refused: all})
}

// nack is nil, or one error that names what was refused, at most ten.
func nack(refused map[string]string) error {
	var errs []error
	for name, reason := range refused {
		if len(errs) == 10 {
			errs = append(errs, fmt.Errorf("and %d more", len(refused)-10))
			break
		}
		errs = append(errs, fmt.Errorf("%s: %s", name, reason))
	}
	return errors.Join(errs...)
}
