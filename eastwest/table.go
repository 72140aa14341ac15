package eastwest

import (
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/builder"
)

// listenerName is the listener resource that makes a gateway one; serverNamePrefix begins the clusters it routes to.
const (
	listenerName     = "eastwest"
	serverNamePrefix = "outbound_."
)

var (
	errTransportSocket = errors.New("has a transport socket; a gateway passes TLS through")
	errNames           = errors.New("is found by DNS; a gateway dials addresses that the control plane lists, never a name")
	errNoChain         = errors.New("has no chain with sni_cluster and tcp_proxy and without TLS; a gateway passes TLS through")
)

// table is what the gateway routes by. Immutable.
type table struct {
	upstreams map[string]*upstream // by server name
	// listens: the listener has come. whole: so have the endpoints of every service.
	listens, whole bool
	idleTimeout    time.Duration // 0: none
	helloTimeout   time.Duration // 0: the configured one
}

// upstream is one exported service.
type upstream struct {
	name      string
	settings  *config.Settings
	endpoints *config.Endpoints
	hosts     *balance.Set
	// connectTimeout is the cluster's.
	connectTimeout time.Duration
	opened         *atomic.Int64 // outlives the version
}

// tables turns xDS updates into tables. It belongs to the goroutine of the xDS client; latest is for everybody.
type tables struct {
	builder *builder.Builder
	latest  atomic.Pointer[table]
	// changed is told of each new table.
	changed func(*table)
}

func newTables(changed func(*table)) *tables {
	t := &tables{builder: builder.New(), changed: changed}
	t.builder.CheckListener, t.builder.CheckCluster = checkListener, checkCluster
	t.latest.Store(&table{})
	return t
}

// checkCluster refuses what would have the gateway begin TLS, or look up a name.
func checkCluster(s *config.Settings) error {
	switch {
	case !strings.HasPrefix(s.Name, serverNamePrefix): // not routed to
		return nil
	case s.TLS != nil:
		return errTransportSocket
	case s.Discovery == config.StrictDNS:
		return errNames
	}
	return nil
}

// checkListener refuses what would have the gateway end TLS.
func checkListener(l *config.Listener) error {
	if l.Name == listenerName && passthrough(l) == nil {
		return errNoChain
	}
	return nil
}

// apply takes what is good of an update; the error becomes the NACK, and of what it names the last good version stays.
func (t *tables) apply(u adsclient.Update) error {
	update := config.Update{Type: u.Type, Removed: u.Removed}
	for _, item := range u.Upserts {
		update.Upserts = append(update.Upserts, config.Resource{
			Name: item.Name, Version: item.Version.String(), Body: item.Body, Updated: time.Now(),
		})
	}
	made, err := t.builder.Apply(update)
	next := newTable(made, t.latest.Load())
	t.latest.Store(next)
	t.changed(next)
	return err
}

// newTable keeps the upstreams whose resources did not change.
func newTable(c *config.Config, old *table) *table {
	next := &table{upstreams: make(map[string]*upstream, len(c.Clusters))}
	listener := c.Listeners[listenerName]
	if listener == nil {
		return next
	}
	chain := passthrough(listener) // not nil, by checkListener
	next.listens, next.whole = true, true
	next.idleTimeout, next.helloTimeout = chain.TCP.IdleTimeout, listener.InspectorTimeout
	for name, cluster := range c.Clusters {
		if strings.HasPrefix(name, serverNamePrefix) {
			next.upstreams[name] = newUpstream(cluster, old.upstreams[name])
			next.whole = next.whole && cluster.Endpoints != nil
		}
	}
	return next
}

// passthrough finds the one chain that a gateway's listener has, or nil.
func passthrough(l *config.Listener) *config.FilterChain {
	for _, chain := range l.Chains {
		if chain.SNICluster && chain.TCP != nil && chain.TLS == nil {
			return chain
		}
	}
	return nil
}

func newUpstream(c *config.Cluster, old *upstream) *upstream {
	u := &upstream{name: c.Name, settings: c.Settings, endpoints: c.Endpoints, connectTimeout: c.Settings.ConnectTimeout}
	if old == nil {
		u.opened = new(atomic.Int64)
		u.hosts = balance.NewSet(specOf(c), nil)
		return u
	}
	if old.settings == c.Settings && old.endpoints == c.Endpoints {
		return old
	}
	u.opened = old.opened
	u.hosts = balance.NewSet(specOf(c), old.hosts)
	return u
}

var policies = map[config.BalancePolicy]balance.Policy{
	config.RoundRobin: balance.RoundRobin, config.LeastRequest: balance.LeastRequest, config.Random: balance.Random,
	// There is no hash without a look inside.
	config.RingHash: balance.Random, config.Maglev: balance.Random,
}

// specOf is without the cluster's outlier detection and limits: those are for requests, which a gateway does not see.
func specOf(c *config.Cluster) balance.Spec {
	percent := uint32(50)
	spec := balance.Spec{
		Policy: policies[c.Settings.Balance.Policy], LocalityWeighted: c.Settings.Balance.LocalityWeighted,
		PanicPercent: uint32(c.Settings.Balance.PanicPercent),
		// A host that three times in a row could not be reached rests for 5 s, but never more than half of them.
		Outlier: &balance.OutlierConfig{
			Consecutive5xx: 3, Interval: outlierInterval, BaseEjection: 5 * time.Second, MaxEjection: time.Minute,
			MaxEjectionPercent: &percent,
		},
	}
	if c.Endpoints == nil {
		return spec
	}
	spec.OverprovisioningPercent, spec.WeightedHealth = c.Endpoints.Overprovisioning, c.Endpoints.WeightedPriority
	for _, l := range c.Endpoints.Localities {
		for int(l.Priority) >= len(spec.Levels) {
			spec.Levels = append(spec.Levels, balance.Level{})
		}
		level := &spec.Levels[l.Priority]
		level.Localities = append(level.Localities, localityOf(l))
	}
	return spec
}

func localityOf(l config.Locality) balance.Locality {
	made := balance.Locality{Region: l.Region, Zone: l.Zone, Subzone: l.Subzone, Weight: l.Weight}
	for _, e := range l.Endpoints {
		made.Hosts = append(made.Hosts, balance.HostSpec{Address: e.Address.String(), Weight: e.Weight, Health: healthOf(e.Health)})
	}
	return made
}

func healthOf(h config.Health) balance.Health {
	switch h {
	case config.HealthUnknown, config.Healthy:
		return balance.Healthy
	case config.Degraded:
		return balance.Degraded
	}
	return balance.Unhealthy
}
