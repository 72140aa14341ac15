package translate

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Assignment is what a client gets for a request, and why.
type Assignment struct {
	// Levels by priority, 0 first, without gaps; in each, by locality, cluster and name.
	Levels [][]Placed
	// Dropped is what the client does not get. Every endpoint of the service is behind one Placed or in one Dropped.
	Dropped []Dropped
	// Rules say, for people, what shaped the assignment.
	Rules []string
	// PanicPercent is the healthy_panic_threshold in force, 0..100.
	PanicPercent uint32
}

// Placed is an address that the client may use: an endpoint, or a gateway to endpoints of another network.
type Placed struct {
	Name     string // the endpoint's, or the gateway's
	Cluster  mesh.ClusterID
	Network  mesh.Network
	Address  netip.AddrPort
	Locality mesh.Locality // the gateway's own, if it is one
	Health   mesh.Health   // healthy or unhealthy
	Weight   uint32        // >= 1, inside the locality
	// LocalityWeight is the weight of its locality in its level, the same for all of the locality.
	LocalityWeight uint32
	Gateway        bool
	StandsFor      uint32 // endpoints behind it; 1 if it is one
	Reason         string
	labels         map[string]string
}

// Dropped is one endpoint, or as many as Count behind one summary, that the client does not get.
type Dropped struct {
	Name     string // empty for a summary
	Cluster  mesh.ClusterID
	Network  mesh.Network
	Address  netip.Addr // invalid for a summary
	Locality mesh.Locality
	Health   mesh.Health
	Weight   uint32
	Count    uint32
	Reason   string
}

// Assign decides which endpoints a client may use for a request, and in which order. It depends on its arguments
// only; EDS serialises what it returns and "explain" prints it.
func Assign(s *mesh.Snapshot, v View, r Request) Assignment {
	usual, drained := newAssigner(s, v, r).run(false)
	if !drained || usual.healthy() {
		return usual
	}
	// Nothing healthy is left outside the drained clusters: better there than nowhere.
	last, _ := newAssigner(s, v, r).run(true)
	if last.healthy() || len(usual.Levels) == 0 {
		last.Rules = append(last.Rules, "drained clusters are used: nothing healthy is left elsewhere")
		return last
	}
	return usual
}

func (a Assignment) healthy() bool {
	for _, level := range a.Levels {
		for i := range level {
			if level[i].Health == mesh.Healthy {
				return true
			}
		}
	}
	return false
}

// assigner is one run of the reasoning.
type assigner struct {
	s             *mesh.Snapshot
	v             View
	r             Request
	network       mesh.Network // the client's, if its cluster has it
	registered    bool         // the client's cluster is
	subset        mesh.Subset
	known         bool // the subset exists
	authenticated bool
	balance       mesh.LocalityBalance
	distribute    *mesh.Distribute // that holds for the client, or nil
	placed        []Placed
	seen          map[netip.AddrPort]bool
	groups        []*group // of other networks, in order of discovery: by cluster
	out           Assignment
}

func newAssigner(s *mesh.Snapshot, v View, r Request) *assigner {
	a := &assigner{s: s, v: v, r: r, network: v.Network, seen: map[netip.AddrPort]bool{}}
	a.subset, a.known = v.subset(s, r)
	a.authenticated = v.Authenticated(s, r.Service)
	traffic := v.Traffic(s, r)
	a.out.PanicPercent = PanicPercent(traffic)
	if traffic.LoadBalancer != nil && traffic.LoadBalancer.Locality != nil {
		a.balance = *traffic.LoadBalancer.Locality
	}
	own := s.Cluster(v.Cluster)
	a.registered = own != nil
	if own != nil && !hasNetwork(own, v.Network) {
		a.network = "" // a network that the client's cluster does not have reaches nothing directly
	}
	if v.Role != Gateway {
		a.distribute = matchingDistribute(a.balance, v.Locality)
	}
	a.explainRules()
	return a
}

func hasNetwork(c *mesh.Cluster, network mesh.Network) bool {
	return slices.ContainsFunc(c.Networks, func(n mesh.NetworkRange) bool { return n.Name == network })
}

// direct tells whether the client reaches a cluster's addresses in a network without a gateway. Which networks it
// shares with other clusters is known once its own is registered.
func (a *assigner) direct(c mesh.ClusterID, network mesh.Network) bool {
	return network == a.network && (a.registered || c == a.v.Cluster)
}

// run reasons about every endpoint. It also tells whether any was left out only because its cluster is drained.
func (a *assigner) run(lastResort bool) (Assignment, bool) {
	drained := false
	var from source
	at := func(c mesh.ClusterID) source {
		if from.cluster != c {
			from = a.source(c, lastResort)
		}
		return from
	}
	for slice := range a.s.Endpoints(a.r.Service) {
		from := at(slice.Cluster)
		drained = drained || from.drained && len(slice.Endpoints) > 0
		for i := range slice.Endpoints {
			a.endpoint(from, &slice.Endpoints[i])
		}
	}
	for summary := range a.s.Summaries(a.r.Service) {
		from := at(summary.Cluster)
		drained = drained || from.drained && len(summary.Buckets) > 0
		for i := range summary.Buckets {
			a.bucket(from, summary, &summary.Buckets[i])
		}
	}
	a.enterNetworks()
	a.prioritise()
	return a.out, drained
}

// source is what is true of all of a cluster's endpoints of the service.
type source struct {
	cluster  mesh.ClusterID
	port     string // its name there
	reason   string // not empty: none of them is used
	drained  bool   // and that is because the cluster is drained
	gateways []*gatewaySet
}

func (a *assigner) source(c mesh.ClusterID, lastResort bool) source {
	from := source{cluster: c}
	service, cluster := a.s.Service(a.r.Service, c), a.s.Cluster(c)
	switch {
	case service == nil:
		from.reason = "cluster " + string(c) + " has no such service"
	case a.v.Role == Gateway && c != a.v.Cluster:
		from.reason = "a gateway serves its own cluster only"
	case !a.v.offers(service):
		from.reason = "not exported by cluster " + string(c)
	case cluster == nil && c != a.v.Cluster:
		from.reason = "cluster " + string(c) + " is not registered"
	case cluster != nil && cluster.State == mesh.ClusterDrained && !lastResort && a.v.Role != Gateway:
		from.reason, from.drained = "cluster "+string(c)+" is drained", true
	}
	if from.reason != "" {
		return from
	}
	i := slices.IndexFunc(service.Ports, func(p mesh.ServicePort) bool { return p.Port == a.r.Port })
	if i < 0 {
		from.reason = "cluster " + string(c) + " does not serve port " + strconv.Itoa(int(a.r.Port))
		return from
	}
	from.port = service.Ports[i].Name
	from.gateways = gatewaySets(a.s, c)
	return from
}

// endpoint places e, counts it behind its gateways, or drops it.
func (a *assigner) endpoint(from source, e *mesh.Endpoint) {
	port, exposed := e.Ports[from.port]
	reason := a.refuse(from, e.Network, e.Labels, exposed, !e.Identity.IsZero())
	if reason == "" && e.Health == mesh.Draining {
		reason = "draining"
	}
	address := netip.AddrPortFrom(e.Address, port)
	direct := a.direct(from.cluster, e.Network)
	if reason == "" && direct {
		reason = a.refuseDirect(e, address)
	}
	switch {
	case reason != "":
		a.out.Dropped = append(a.out.Dropped, Dropped{
			Name: e.Name, Cluster: from.cluster, Network: e.Network, Address: e.Address, Locality: e.Locality,
			Health: e.Health, Weight: e.Weight, Count: 1, Reason: reason,
		})
	case direct:
		a.seen[address] = true
		a.placed = append(a.placed, Placed{
			Name: e.Name, Cluster: from.cluster, Network: e.Network, Address: address, Locality: e.Locality,
			Health: e.Health, Weight: max(e.Weight, 1), StandsFor: 1, labels: e.Labels,
		})
	default:
		a.behind(from, e.Network).add(countEndpoint(e))
	}
}

func (a *assigner) refuseDirect(e *mesh.Endpoint, address netip.AddrPort) string {
	switch {
	case !a.lists(e.Locality):
		return a.unlisted()
	case a.seen[address]: // Envoy keeps one host an address, the first
		return "address " + address.String() + " is there already"
	}
	return ""
}

// bucket counts a bucket behind its gateways, or drops it.
func (a *assigner) bucket(from source, s *mesh.Summary, b *mesh.SummaryBucket) {
	if b.Total == 0 {
		return // draining ones, kept for their identities
	}
	reason := a.refuse(from, s.Network, b.Labels, slices.Contains(b.PortNames, from.port), true)
	if reason == "" && a.direct(from.cluster, s.Network) {
		reason = "known by count only, in the client's own network"
	}
	if reason == "" {
		a.behind(from, s.Network).add(count{b.Total, b.Healthy, uint64(b.HealthyWeight)})
		return
	}
	health := mesh.Unhealthy
	if b.Healthy > 0 {
		health = mesh.Healthy
	}
	a.out.Dropped = append(a.out.Dropped, Dropped{
		Cluster: s.Cluster, Network: s.Network, Locality: s.Locality, Health: health, Weight: b.HealthyWeight,
		Count: b.Total, Reason: reason,
	})
}

// refuse tells why the client may not use something, whatever its health; empty: it may.
func (a *assigner) refuse(from source, network mesh.Network, labels map[string]string, exposed, identified bool) string {
	away := !a.direct(from.cluster, network)
	switch {
	case from.reason != "":
		return from.reason
	case away && a.v.Role == Gateway:
		return "not in the gateway's network"
	case away && from.gatewaysInto(network) == nil:
		return "no gateway into network " + string(network) + " of cluster " + string(from.cluster)
	case !identified && away:
		return "no identity: mutual TLS is required across networks"
	case !identified && a.v.Role == Gateway:
		return "no identity: mutual TLS is required through a gateway"
	case !identified && a.authenticated:
		return "no identity: the service uses mutual TLS"
	case !a.known:
		return "subset " + strconv.Quote(a.r.Subset) + " is not defined"
	case !Matches(a.subset.Labels, labels):
		return "not in subset " + strconv.Quote(a.r.Subset)
	case !exposed:
		return "does not expose port " + strconv.Quote(from.port)
	}
	return ""
}

// order is the order inside a level.
func order(a, b Placed) int {
	return cmp.Or(compareLocality(a.Locality, b.Locality), cmp.Compare(a.Cluster, b.Cluster),
		cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address))
}

func compareLocality(a, b mesh.Locality) int {
	return cmp.Or(cmp.Compare(a.Region, b.Region), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Subzone, b.Subzone))
}
