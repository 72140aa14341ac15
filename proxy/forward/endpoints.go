package forward

import (
	"net"
	"strconv"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// newSet turns a cluster's endpoints into the next version of its balance.Set.
func newSet(c *config.Cluster, previous *balance.Set) (*balance.Set, map[string]*config.Endpoint) {
	s, e := c.Settings, c.Endpoints
	hosts := map[string]*config.Endpoint{}
	spec := balance.Spec{
		Policy: policies[s.Balance.Policy], LocalityWeighted: s.Balance.LocalityWeighted, WeightedHealth: e.WeightedPriority,
		PanicPercent: uint32(s.Balance.PanicPercent), OverprovisioningPercent: e.Overprovisioning,
		MinRing: s.Balance.RingMin, MaxRing: s.Balance.RingMax, Outlier: outlier(s.Outlier), Limits: limits(&s.Breakers[config.DefaultPriority]),
	}
	for i := range e.Localities {
		l := &e.Localities[i]
		for len(spec.Levels) <= int(l.Priority) {
			spec.Levels = append(spec.Levels, balance.Level{})
		}
		level := &spec.Levels[l.Priority]
		level.Localities = append(level.Localities, locality(l, hosts))
	}
	return balance.NewSet(spec, previous), hosts
}

var policies = [...]balance.Policy{
	config.RoundRobin: balance.RoundRobin, config.LeastRequest: balance.LeastRequest, config.Random: balance.Random,
	config.RingHash: balance.RingHash, config.Maglev: balance.Maglev,
}

func locality(l *config.Locality, hosts map[string]*config.Endpoint) balance.Locality {
	out := balance.Locality{Region: l.Region, Zone: l.Zone, Subzone: l.Subzone, Weight: l.Weight}
	for i := range l.Endpoints {
		e := &l.Endpoints[i]
		address := Address(e)
		if hosts[address] == nil {
			hosts[address] = e
		}
		out.Hosts = append(out.Hosts, balance.HostSpec{Address: address, Weight: e.Weight, Health: health(e.Health), Data: e})
	}
	return out
}

// Address is what to dial for an endpoint; it is the host's address in the balance.Set.
func Address(e *config.Endpoint) string {
	if e.Address.IsValid() {
		return e.Address.String()
	}
	return net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
}

func health(h config.Health) balance.Health {
	switch h {
	case config.HealthUnknown, config.Healthy:
		return balance.Healthy
	case config.Degraded:
		return balance.Degraded
	}
	return balance.Unhealthy
}

// outlier takes over what balance can do; enforcing percentages below 100 count as on, 0 as off.
func outlier(o *config.Outlier) *balance.OutlierConfig {
	if o == nil {
		return nil
	}
	percent := o.MaxEjectionPercent
	out := &balance.OutlierConfig{
		SplitLocal: o.SplitExternalLocal, Interval: o.Interval, BaseEjection: o.BaseEjection, MaxEjection: o.MaxEjection,
		MaxEjectionPercent: &percent, AlwaysEjectOne: o.AlwaysEjectOne,
	}
	if o.Enforce5xx > 0 {
		out.Consecutive5xx = o.Consecutive5xx
	}
	if o.EnforceGatewayFailure > 0 {
		out.ConsecutiveGateway = o.ConsecutiveGatewayFailure
	}
	if o.EnforceLocalOrigin > 0 {
		out.ConsecutiveLocal = o.ConsecutiveLocalOriginFailure
	}
	return out
}

// limits of a breaker; nil, the defaults, of one that was not configured.
func limits(b *config.Breaker) *balance.Limits {
	if *b == (config.Breaker{}) {
		return nil
	}
	out := &balance.Limits{MaxConnections: b.MaxConnections, MaxPending: b.MaxPending, MaxRequests: b.MaxRequests, MaxRetries: b.MaxRetries}
	if b.RetryBudgetPercent > 0 {
		out.Retry = &balance.RetryBudget{Percent: b.RetryBudgetPercent, MinConcurrency: b.RetryBudgetMin}
	}
	return out
}
