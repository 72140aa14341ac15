package clusteragent

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/credential"
	"github.com/periplus-mesh/periplus/cluster-agent/federate"
	"github.com/periplus-mesh/periplus/cluster-agent/file"
	"github.com/periplus-mesh/periplus/cluster-agent/follow"
	"github.com/periplus-mesh/periplus/cluster-agent/load"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/cluster-agent/report"
	"github.com/periplus-mesh/periplus/cluster-agent/state"
	"github.com/periplus-mesh/periplus/cluster-agent/workload"
	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust/continuity"
)

const workloads = own.Workloads

// agent is the parts, wired. Only federator comes later.
type agent struct {
	config     Config
	credential *credential.Credential
	store      *mesh.Store
	table      *own.Table
	file       *file.Watcher // nil: no services file
	registry   *workload.Registry
	keeper     *state.Keeper
	follower   *follow.Follower
	reporter   *report.Reporter
	load       *load.Aggregator
	ads        *adsserver.Server[*mesh.Snapshot]
	proxies    proxies
	federator  watch.Value[*federate.Federator] // nil: not yet, or never
	metrics    *metrics

	controllers watch.Value[[]adsclient.Target] // where the feed may come from

	serving     atomic.Bool   // the proxies' listener is served
	restored    bool          // the own cluster was on disk; written before any loop runs
	sourcesRead chan struct{} // closed once the own sources may be reported

	registration sync.Mutex // orders those who tell the own cluster's registration
	fed          bool       // guarded by registration: the feed has told it
}

type metrics struct{ ready prometheus.Gauge }

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{ready: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "periplus_agent_ready", Help: "1 once the agent serves its proxies: sources read, other clusters known.",
	})}
	r.MustRegister(m.ready)
	return m
}

func assemble(c Config, identity *credential.Credential) (*agent, error) {
	cluster := identity.Cluster()
	store := c.Store
	a := &agent{
		config: c, credential: identity, store: store, sourcesRead: make(chan struct{}),
		table:   own.New(store, own.Owner{Cluster: cluster.ID, Domain: cluster.TrustDomain}),
		load:    load.NewAggregator(time.Now(), c.Metrics),
		metrics: newMetrics(c.Metrics),
	}
	for _, part := range []func() error{a.withFile, a.withRegistry, a.withKeeper, a.withFollower, a.withReporter} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	a.ads = adsserver.New(adsserver.Config[*mesh.Snapshot]{State: store, Authorize: a.authorize, Log: c.Log, Metrics: c.Metrics})
	return a, nil
}

func (a *agent) withFile() (err error) {
	if a.config.ServicesFile == "" {
		return nil
	}
	a.file, err = file.New(file.Config{
		Path: a.config.ServicesFile, Cluster: a.credential.Cluster, Log: a.config.Log, Metrics: a.config.Metrics,
		Apply: func(objects []mesh.Object) { a.table.Replace(own.File, objects) },
	})
	return err
}

func (a *agent) withRegistry() (err error) {
	a.registry, err = workload.New(workload.Config{
		Table: a.table, Cluster: a.credential.Cluster, GracePeriod: a.config.GracePeriod, Log: a.config.Log, Metrics: a.config.Metrics,
	})
	return err
}

func (a *agent) withKeeper() (err error) {
	a.keeper, err = state.New(state.Config{
		DataDir: a.config.DataDir, Table: a.table, Store: a.store, Log: a.config.Log, Metrics: a.config.Metrics,
	})
	return err
}

func (a *agent) withFollower() (err error) {
	var forget []spiffeid.TrustDomain
	for _, name := range a.config.ForgetDomains {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("trust domain %q to forget: %w", name, err)
		}
		forget = append(forget, domain)
	}
	a.follower, err = follow.New(follow.Config{
		Forget: forget,
		Owner:  a.table.Owner(), Store: a.store, Targets: a.targets(a.credential.Controllers()), TargetUpdates: &a.controllers, Source: a.credential, Dial: ads.DialFunc(a.config.Dial),
		DiskCache: filepath.Join(a.config.DataDir, "feed"), Anchors: filepath.Join(a.config.DataDir, "removed-domains.json"), Continuity: continuous, OnCluster: a.followed,
		Log: a.config.Log, Metrics: a.config.Metrics,
	})
	return err
}

func (a *agent) targets(controllers []string) (targets []adsclient.Target) {
	authorize := credential.AuthorizeController(a.credential.Plane())
	for _, address := range controllers {
		targets = append(targets, adsclient.Target{Name: "controller " + address, Address: address, Authorize: authorize})
	}
	return targets
}

// followMembers leads the feed to the replicas of the control plane as they join and leave.
func (a *agent) followMembers(ctx context.Context) error {
	for {
		controllers, changed := a.credential.WatchControllers()
		a.controllers.Set(a.targets(controllers))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (a *agent) onControllers(addresses []string) {
	if err := a.credential.SetControllers(addresses); err != nil {
		a.config.Log.Error("the list of controllers was not kept", "err", err)
	}
}

func (a *agent) withReporter() (err error) {
	a.reporter, err = report.New(report.Config{
		Owner: a.table.Owner(), Store: a.store, Ready: a.sourcesRead, Settled: a.registry.Synced(), Source: a.credential,
		Authorize: credential.AuthorizeController(a.credential.Plane()), Controllers: a.credential.Controllers,
		OnCluster: a.onCluster, OnControllers: a.onControllers, Load: a.loadReport, Dial: a.config.Dial, Version: a.config.Version, Instance: newInstance(),
		Log: a.config.Log, Metrics: a.config.Metrics,
	})
	return err
}

// followed takes the registration from the feed, which has the last word: it does not repeat what it has told.
func (a *agent) followed(c *mesh.Cluster) error {
	a.registration.Lock()
	defer a.registration.Unlock()
	a.fed = true
	return a.credential.SetCluster(c)
}

// onCluster takes the registration that a controller welcomes the agent with, until the feed has told it: the two may
// come from different replicas, and a welcome that was on its way for a while must not undo what is newer.
func (a *agent) onCluster(c *pb.Cluster) {
	a.registration.Lock()
	defer a.registration.Unlock()
	if a.fed {
		return
	}
	object, err := meshpb.Decode(&pb.Object{Kind: &pb.Object_Cluster{Cluster: c}})
	if err == nil {
		err = a.credential.SetCluster(object.(*mesh.Cluster))
	}
	if err != nil {
		a.config.Log.Error("registration of the own cluster refused; the old one stays", "err", err)
	}
}

// continuous tells why next may not replace held as a trust domain's bundle.
func continuous(held, next *mesh.Federation) error {
	var base []byte
	if held != nil {
		if held.Cluster != next.Cluster {
			return fmt.Errorf("trust domain %q is cluster %q's, not %q's", next.TrustDomain.Name(), held.Cluster, next.Cluster)
		}
		base = held.Bundle
	}
	_, err := continuity.Verify(base, continuity.Proof{
		TrustDomain: next.TrustDomain, Sequence: next.Sequence, Bundle: next.Bundle, Signature: next.Signature, Chain: next.Chain,
	}, time.Now())
	return err
}

func snapshotOf(store *mesh.Store) *mesh.Snapshot {
	snapshot, _ := store.Latest()
	return snapshot
}
