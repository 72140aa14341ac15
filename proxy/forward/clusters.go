package forward

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/proxy/route"
	"github.com/periplus-mesh/periplus/trust"
)

// ClustersConfig configures Clusters.
type ClustersConfig struct {
	// Source is the own identity; nil refuses clusters with TLS.
	Source trust.Source
	// Dial connects; nil is net.Dialer's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Buffers of upstream connections; nil: own ones.
	Buffers *http1.Buffers
	Log     *slog.Logger // nil: discarded
}

func (c *ClustersConfig) validate() {
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Buffers == nil {
		c.Buffers = &http1.Buffers{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Clusters is everything upstream. Update has one caller; all else is safe for concurrent use.
type Clusters struct {
	config ClustersConfig
	view   atomic.Pointer[View]
	pool   http1.Pool[poolKey]
}

// poolKey: a connection belongs to an address under one version of the cluster's settings.
type poolKey struct {
	settings *config.Settings
	address  string
}

// View is one version of configuration and clusters. Immutable, but for what a balance.Set learns.
type View struct {
	Config   *config.Config
	clusters map[string]*Cluster
	tables   map[*config.RouteTable]*route.Table
}

// Cluster is one Envoy cluster at work.
type Cluster struct {
	Name     string
	Settings *config.Settings
	// Set is nil as long as the endpoints have not arrived.
	Set *balance.Set
	TLS *tls.Config // nil: plain text

	endpoints *config.Endpoints
	hosts     map[string]*config.Endpoint // by address
	owner     *Clusters
	refused   error // why its TLS cannot be
}

// NewClusters returns Clusters without any.
func NewClusters(c ClustersConfig) *Clusters {
	c.validate()
	out := &Clusters{config: c}
	out.view.Store(&View{Config: &config.Config{}})
	return out
}

// View returns the latest version.
func (c *Clusters) View() *View { return c.view.Load() }

// Cluster returns a cluster by name, or nil.
func (v *View) Cluster(name string) *Cluster { return v.clusters[name] }

// Clusters returns all of them. Read only.
func (v *View) Clusters() map[string]*Cluster { return v.clusters }

// Table returns the compiled routes of an HTTP filter.
func (v *View) Table(h *config.HTTP) *route.Table {
	if t := v.tables[v.Config.RoutesOf(h)]; t != nil {
		return t
	}
	return route.Compile(v.Config.RoutesOf(h)) // a listener that is younger than this view
}

// Update makes the next View; what did not change is carried over.
func (c *Clusters) Update(next *config.Config) *View {
	old := c.view.Load()
	v := &View{Config: next, clusters: make(map[string]*Cluster, len(next.Clusters)), tables: map[*config.RouteTable]*route.Table{nil: route.Compile(nil)}}
	for name, cluster := range next.Clusters {
		v.clusters[name] = c.cluster(cluster, old.clusters[name])
	}
	v.addTables(old)
	c.view.Store(v)
	c.sweep(time.Now())
	return v
}

func (v *View) addTables(old *View) {
	add := func(t *config.RouteTable) {
		if v.tables[t] != nil {
			return
		}
		if v.tables[t] = old.tables[t]; v.tables[t] == nil {
			v.tables[t] = route.Compile(t)
		}
	}
	for _, t := range v.Config.Routes {
		add(t)
	}
	for _, l := range v.Config.Listeners {
		for _, chain := range append(l.Chains[:len(l.Chains):len(l.Chains)], l.Default) {
			if chain != nil && chain.HTTP != nil && chain.HTTP.Routes != nil {
				add(chain.HTTP.Routes)
			}
		}
	}
}

func (c *Clusters) cluster(next *config.Cluster, old *Cluster) *Cluster {
	if old != nil && old.Settings == next.Settings && old.endpoints == next.Endpoints {
		return old
	}
	out := &Cluster{Name: next.Name, Settings: next.Settings, endpoints: next.Endpoints, owner: c}
	var previous *balance.Set
	if old != nil {
		previous, out.Set = old.Set, old.Set
	}
	if old != nil && old.Settings == next.Settings {
		out.TLS, out.refused = old.TLS, old.refused
	} else if next.Settings.TLS != nil {
		out.TLS, out.refused = c.clientTLS(next.Settings.TLS)
	}
	if out.refused != nil {
		c.config.Log.Warn("cluster refused", "cluster", next.Name, "err", out.refused)
	}
	if next.Endpoints != nil {
		out.Set, out.hosts = newSet(next, previous)
	} else if old != nil {
		out.endpoints, out.hosts = old.endpoints, old.hosts // unknown is never empty
	}
	return out
}

// clientTLS: exactly the identities that the cluster names, SNI and ALPN as the cluster says; resumed sessions are
// verified like new ones.
func (c *Clusters) clientTLS(t *config.UpstreamTLS) (*tls.Config, error) {
	if c.config.Source == nil {
		return nil, fmt.Errorf("tls: the proxy has no identity")
	}
	authorize := trust.AuthorizeAny
	if len(t.SANs) > 0 {
		ids := make([]spiffeid.ID, 0, len(t.SANs))
		for _, san := range t.SANs {
			id, err := spiffeid.FromString(san)
			if err != nil {
				return nil, fmt.Errorf("tls: san %q: %w", san, err)
			}
			ids = append(ids, id)
		}
		authorize = trust.AuthorizeOneOf(ids...)
	}
	out := trust.ClientConfig(c.config.Source, authorize)
	out.ServerName, out.NextProtos = t.SNI, t.ALPN
	out.ClientSessionCache = trust.SessionCache(c.config.Source, 32)
	return out, nil
}

// Run looks after outlier detection and idle connections until ctx ends, then closes the pools.
func (c *Clusters) Run(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	defer c.pool.Close()
	ticked := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			c.tick(now, ticked)
			c.sweep(now)
		}
	}
}

func (c *Clusters) tick(now time.Time, ticked map[string]time.Time) {
	for name, cluster := range c.View().clusters {
		if cluster.Set == nil {
			continue
		}
		interval := cluster.Set.OutlierInterval()
		if interval > 0 && now.Sub(ticked[name]) >= interval {
			ticked[name] = now
			cluster.Set.Tick(now)
		}
	}
}

// sweep closes idle connections that are too old, or lead to what is no longer to be used.
func (c *Clusters) sweep(now time.Time) {
	v := c.View()
	c.pool.Sweep(func(key poolKey, idleSince time.Time) bool {
		cluster := v.clusters[key.settings.Name]
		if cluster == nil || cluster.Settings != key.settings || !cluster.usable(key.address) {
			return false
		}
		return key.settings.IdleTimeout == 0 || now.Sub(idleSince) < key.settings.IdleTimeout
	})
}

func (c *Cluster) usable(address string) bool {
	e := c.hosts[address]
	return e != nil && e.Health != config.Draining
}
