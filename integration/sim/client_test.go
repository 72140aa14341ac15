package sim

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/internal/xds"
)

const catalogName = "outbound|80||catalog.shop.svc.cluster.local"

// client is a sidecar as the control plane sees it: it keeps what it is told, and looks whether that is allowed.
type client struct {
	c       *cluster
	name    string
	node    *corev3.Node
	direct  bool // it knows controllers only
	process *process
	status  watch.Value[adsclient.Status]

	mu       sync.Mutex
	held     map[xds.Type]map[string]adsclient.Item
	received int                             // resources over the network
	stream   time.Time                       // when it was opened
	versions map[string]uint32               // highest port seen on this stream, by endpoint
	clusters map[string]map[string]time.Time // since when, by assignment and cluster
}

// sidecar prefers the agent and falls back to the controllers, as the proxy does.
func (c *cluster) sidecar(name string) *client {
	return c.client(name, false, append([]adsclient.Target{c.agentTarget()}, c.w.controllerTargets()...))
}

// direct uses one controller first, and the others when that is away.
func (c *cluster) direct(name string, first *controller) *client {
	targets := c.w.controllerTargets()
	for i := range targets {
		if targets[i].Name == first.id {
			targets[0], targets[i] = targets[i], targets[0]
		}
	}
	return c.client(name, true, targets)
}

func (c *cluster) agentTarget() adsclient.Target {
	return adsclient.Target{Name: "agent", Address: c.host() + agentPort, Authorize: c.authorizeAgent()}
}

func (w *world) controllerTargets() (targets []adsclient.Target) {
	for _, c := range w.controllers {
		targets = append(targets, adsclient.Target{Name: c.id, Address: c.id + meshPort, Authorize: peer.OnlyController(domain(), "")})
	}
	return targets
}

func (c *cluster) client(name string, direct bool, targets []adsclient.Target) *client {
	k := &client{c: c, name: c.name + "-" + name, direct: direct, held: map[xds.Type]map[string]adsclient.Item{}, clusters: map[string]map[string]time.Time{}}
	metadata, err := structpb.NewStruct(map[string]any{"NETWORK": c.network, "BIND": "127.0.0.1", "OUTBOUND_PORT": 15001})
	c.w.must(err)
	k.node = &corev3.Node{Id: "sidecar~" + k.name, Cluster: "storefront.shop", Metadata: metadata, Locality: &corev3.Locality{Region: c.region, Zone: "a"}}
	source := c.material("/ns/shop/sa/storefront")
	c.w.clients = append(c.w.clients, k)
	k.process = c.w.run(k.name, func(ctx context.Context, p *process) error {
		return adsclient.Run(ctx, adsclient.Config{
			Targets: targets, Source: source, Node: k.node, Wildcard: []xds.Type{xds.Cluster, xds.Listener}, Follow: true,
			Apply: k.apply, Dial: p.dial, Status: &k.status, Log: logger(k.name),
		})
	})
	return k
}

// leave ends the client for good.
func (k *client) leave() {
	k.process.stop()
	all := k.c.w.clients[:0]
	for _, other := range k.c.w.clients {
		if other != k {
			all = append(all, other)
		}
	}
	k.c.w.clients = all
}

func (k *client) apply(u adsclient.Update) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.received += len(u.Upserts)
	if k.held[u.Type] == nil {
		k.held[u.Type] = map[string]adsclient.Item{}
	}
	if opened := k.status.Latest().Since; opened != k.stream {
		k.stream, k.versions = opened, map[string]uint32{}
	}
	for _, item := range u.Upserts {
		k.held[u.Type][item.Name] = item
		if u.Type == xds.Endpoints {
			k.judge(item)
		}
	}
	for _, name := range u.Removed {
		delete(k.held[u.Type], name)
		if u.Type == xds.Endpoints {
			k.vanished(name, nil)
		}
	}
	return nil
}

// judge looks at an assignment: I5 and I6.
func (k *client) judge(item adsclient.Item) {
	now := map[string]bool{}
	for _, p := range placed(item) {
		now[p.cluster] = true
		if p.gateway || p.cluster != k.c.name && !k.direct {
			continue // a gateway has no version, and an agent may change to a replica that lags
		}
		key := item.Name + " " + p.cluster + "/" + p.workload
		if p.port < k.versions[key] {
			k.c.w.errorf("I5: %s: %s went back from %d to %d on the stream of %s", k.name, key, k.versions[key], p.port, k.stream)
		}
		k.versions[key] = p.port
	}
	k.vanished(item.Name, now)
}

// lag is how far a replica may be behind another that it is in touch with.
const lag = time.Second

func (k *client) vanished(assignment string, now map[string]bool) {
	since := map[string]time.Time{}
	for name, seen := range k.clusters[assignment] {
		if now[name] {
			since[name] = seen
			continue
		}
		// Whoever moves to a replica that lags may lose what it has only just learnt from another.
		behind := k.direct && k.stream.After(seen) && k.stream.Sub(seen) < lag
		if !behind && !k.c.w.invariants.allowed(name, k.c.name) {
			k.c.w.errorf("I6: %s: cluster %s vanished from %s, which leaves %v", k.name, name, assignment, now)
		}
	}
	for name := range now {
		if since[name].IsZero() {
			since[name] = time.Now()
		}
	}
	k.clusters[assignment] = since
}

// address is an address in an assignment.
type address struct {
	cluster, workload, ip string
	port                  uint32
	gateway, healthy      bool
}

func placed(item adsclient.Item) (out []address) {
	var assignment endpointv3.ClusterLoadAssignment
	if err := proto.Unmarshal(item.Body, &assignment); err != nil {
		panic(err)
	}
	for _, group := range assignment.GetEndpoints() {
		for _, e := range group.GetLbEndpoints() {
			fields := e.GetMetadata().GetFilterMetadata()["periplus"].GetFields()
			socket := e.GetEndpoint().GetAddress().GetSocketAddress()
			out = append(out, address{
				cluster: fields["cluster"].GetStringValue(), workload: fields["workload"].GetStringValue(), gateway: fields["gateway"].GetBoolValue(),
				ip: socket.GetAddress(), port: socket.GetPortValue(), healthy: e.GetHealthStatus() == corev3.HealthStatus_HEALTHY,
			})
		}
	}
	return out
}

// catalog is the client's assignment of the one service there is.
func (k *client) catalog() []address {
	k.mu.Lock()
	defer k.mu.Unlock()
	item, ok := k.held[xds.Endpoints][catalogName]
	if !ok {
		return nil
	}
	return placed(item)
}

func (k *client) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.received
}

// target is where the client gets its resources from; "" from nowhere.
func (k *client) target() string { return k.status.Latest().Target }

// uses tells whether the client is served by target.
func (k *client) uses(target string) func() error {
	return func() error {
		if got := k.target(); got != target {
			return fmt.Errorf("%s is served by %q", k.name, got)
		}
		return nil
	}
}

// sees tells whether the client knows the endpoint's present version: itself, or that there is a gateway to it.
func (k *client) sees(e *endpoint) func() error {
	return func() error {
		all := k.catalog()
		for _, a := range all {
			behind := a.gateway && a.cluster == e.c.name && k.c.network != e.c.network
			if behind || a.workload == e.request.GetName() && a.cluster == e.c.name && a.port == e.request.GetServices()[0].GetPorts()[0].GetEndpointPort() {
				return nil
			}
		}
		return fmt.Errorf("%s has %s", k.name, texts(all))
	}
}

func texts(all []address) string {
	var out []string
	for _, a := range all {
		out = append(out, fmt.Sprintf("%s/%s %s:%d", a.cluster, a.workload, a.ip, a.port))
	}
	return strings.Join(out, ", ")
}
