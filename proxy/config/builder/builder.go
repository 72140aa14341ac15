package builder

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/downstream"
	"github.com/periplus-mesh/periplus/proxy/config/field"
	"github.com/periplus-mesh/periplus/proxy/config/upstream"
)

// Limits on what is kept of a control plane, ours included: what exceeds them is refused.
const (
	maxResourceBytes = 8 << 20
	maxResources     = 50_000 // of one type
)

// types are what a Builder takes, in the order in which xDS servers send them.
var types = [...]xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route}

// Builder turns updates into configs. The zero value is not usable, see [New]; it has one user at a time.
type Builder struct {
	// CheckListener and CheckCluster, if set, refuse what decodes well and is not for this proxy: the last good version
	// stays, as with what cannot be decoded. They are set before the first Apply.
	CheckListener func(*config.Listener) error
	CheckCluster  func(*config.Settings) error

	raw       map[xds.Type]map[string]config.Resource // accepted, by name
	answered  map[xds.Type]bool
	settings  map[string]*config.Settings
	inline    map[string]*config.Endpoints // of clusters with endpoints in them
	endpoints map[string]*config.Endpoints // by EDS name
	watchers  map[string][]string          // EDS name -> clusters
	latest    *config.Config
}

// New returns a Builder whose latest Config is empty.
func New() *Builder {
	b := &Builder{
		raw: map[xds.Type]map[string]config.Resource{}, answered: map[xds.Type]bool{},
		settings: map[string]*config.Settings{}, inline: map[string]*config.Endpoints{}, endpoints: map[string]*config.Endpoints{},
		watchers: map[string][]string{},
		latest:   &config.Config{Listeners: map[string]*config.Listener{}, Routes: map[string]*config.RouteTable{}, Clusters: map[string]*config.Cluster{}},
	}
	for _, t := range types {
		b.raw[t] = map[string]config.Resource{}
	}
	return b
}

// Latest returns the newest config.
func (b *Builder) Latest() *config.Config { return b.latest }

// Resources returns what is accepted of a type, sorted by name.
func (b *Builder) Resources(t xds.Type) []config.Resource {
	return slices.SortedFunc(maps.Values(b.raw[t]), func(a, c config.Resource) int { return strings.Compare(a.Name, c.Name) })
}

// Apply takes in what is good of an update and returns the next config. The error names each resource that is
// refused; its last good version stays.
func (b *Builder) Apply(u config.Update) (*config.Config, error) {
	if b.raw[u.Type] == nil {
		return b.latest, fmt.Errorf("resource type %q is not supported", u.Type)
	}
	next := &config.Config{Listeners: b.latest.Listeners, Routes: b.latest.Routes, Clusters: b.latest.Clusters}
	var problems []error
	b.copyOnWrite(next, u.Type)
	for _, name := range u.Removed {
		b.remove(next, u.Type, name)
	}
	for _, r := range u.Upserts {
		if err := b.upsert(next, u.Type, r); err != nil {
			problems = append(problems, config.Refusal{Type: u.Type, Name: r.Name, Err: err})
		}
	}
	b.answered[u.Type] = true
	b.forget(next, u.Type)
	next.Ready = b.ready(next)
	b.latest = next
	return next, errors.Join(problems...)
}

func (b *Builder) copyOnWrite(next *config.Config, t xds.Type) {
	switch t {
	case xds.Cluster, xds.Endpoints:
		next.Clusters = maps.Clone(next.Clusters)
	case xds.Listener:
		next.Listeners = maps.Clone(next.Listeners)
	case xds.Route:
		next.Routes = maps.Clone(next.Routes)
	}
}

func (b *Builder) upsert(next *config.Config, t xds.Type, r config.Resource) error {
	if old, ok := b.raw[t][r.Name]; ok && string(old.Body) == string(r.Body) {
		return nil // pointer-identical
	}
	switch {
	case len(r.Body) > maxResourceBytes:
		return fmt.Errorf("has %d bytes, at most %d are allowed", len(r.Body), maxResourceBytes)
	case len(b.raw[t]) >= maxResources:
		if _, ok := b.raw[t][r.Name]; !ok {
			return fmt.Errorf("is one more than the %d that are allowed", maxResources)
		}
	}
	if err := b.decode(next, t, r); err != nil {
		return err
	}
	b.raw[t][r.Name] = r
	return nil
}

func (b *Builder) decode(next *config.Config, t xds.Type, r config.Resource) error {
	p := field.New()
	switch t {
	case xds.Cluster:
		return b.setCluster(next, p, r)
	case xds.Endpoints:
		pb := new(endpointv3.ClusterLoadAssignment)
		if err := unmarshal(r, pb, pb.GetClusterName); err != nil {
			return err
		}
		endpoints := upstream.Endpoints(p, pb, false)
		if p.Err() == nil {
			b.setEndpoints(next, r.Name, endpoints)
		}
	case xds.Listener:
		pb := new(listenerv3.Listener)
		if err := unmarshal(r, pb, pb.GetName); err != nil {
			return err
		}
		listener := downstream.Listener(p, pb)
		if p.Err() != nil {
			return p.Err()
		}
		if err := check(b.CheckListener, listener); err != nil {
			return err
		}
		next.Listeners[r.Name] = listener
	case xds.Route:
		pb := new(routev3.RouteConfiguration)
		if err := unmarshal(r, pb, pb.GetName); err != nil {
			return err
		}
		table := downstream.RouteTable(p, pb)
		if p.Err() == nil {
			next.Routes[r.Name] = table
		}
	}
	return p.Err()
}

// check asks a proxy that has something to say.
func check[T any](ask func(T) error, what T) error {
	if ask == nil {
		return nil
	}
	return ask(what)
}

// unmarshal also checks that the resource is called what the transport calls it.
func unmarshal(r config.Resource, pb proto.Message, name func() string) error {
	if err := proto.Unmarshal(r.Body, pb); err != nil {
		return errors.New("cannot be decoded")
	}
	if name() != r.Name || r.Name == "" {
		return fmt.Errorf("calls itself %q", name())
	}
	return nil
}

func (b *Builder) setCluster(next *config.Config, p field.Problems, r config.Resource) error {
	pb := new(clusterv3.Cluster)
	if err := unmarshal(r, pb, pb.GetName); err != nil {
		return err
	}
	settings, inline := upstream.Cluster(p, pb)
	if p.Err() != nil {
		return p.Err()
	}
	if err := check(b.CheckCluster, settings); err != nil {
		return err
	}
	b.unwatch(r.Name)
	b.settings[r.Name] = settings
	delete(b.inline, r.Name)
	if settings.Discovery == config.EDS {
		b.watchers[settings.EDSName] = append(b.watchers[settings.EDSName], r.Name)
	} else {
		b.inline[r.Name] = inline
	}
	b.join(next, r.Name)
	return nil
}

// join makes a cluster of its parts.
func (b *Builder) join(next *config.Config, name string) {
	settings := b.settings[name]
	endpoints := b.inline[name]
	if settings.Discovery == config.EDS {
		endpoints = b.endpoints[settings.EDSName]
	}
	next.Clusters[name] = &config.Cluster{Name: name, Settings: settings, Endpoints: endpoints}
}

func (b *Builder) setEndpoints(next *config.Config, name string, endpoints *config.Endpoints) {
	b.endpoints[name] = endpoints
	for _, cluster := range b.watchers[name] {
		b.join(next, cluster)
	}
}

func (b *Builder) unwatch(cluster string) {
	if old := b.settings[cluster]; old != nil && old.Discovery == config.EDS {
		rest := slices.DeleteFunc(b.watchers[old.EDSName], func(name string) bool { return name == cluster })
		if b.watchers[old.EDSName] = rest; len(rest) == 0 {
			delete(b.watchers, old.EDSName)
		}
	}
}

// remove believes the removal of clusters and listeners. Endpoints and routes that are there go in forget, with the last
// that refers to them; of others it is now known that there are none, and nobody waits for them any longer.
func (b *Builder) remove(next *config.Config, t xds.Type, name string) {
	switch t {
	case xds.Cluster:
		b.unwatch(name)
		delete(b.settings, name)
		delete(b.inline, name)
		delete(next.Clusters, name)
		delete(b.raw[t], name)
	case xds.Listener:
		delete(next.Listeners, name)
		delete(b.raw[t], name)
	case xds.Endpoints:
		if b.endpoints[name] == nil {
			b.setEndpoints(next, name, &config.Endpoints{Name: name, Overprovisioning: upstream.DefaultOverprovisioning})
		}
	case xds.Route:
		if next.Routes[name] == nil {
			next.Routes[name] = &config.RouteTable{Name: name}
		}
	}
}

// forget drops endpoints and routes that nothing refers to any more.
func (b *Builder) forget(next *config.Config, t xds.Type) {
	switch t {
	case xds.Cluster, xds.Endpoints:
		for name := range b.endpoints {
			if len(b.watchers[name]) == 0 && b.answered[xds.Cluster] {
				delete(b.endpoints, name)
				delete(b.raw[xds.Endpoints], name)
			}
		}
	case xds.Listener, xds.Route:
		b.forgetRoutes(next)
	}
}

func (b *Builder) forgetRoutes(next *config.Config) {
	if !b.answered[xds.Listener] {
		return
	}
	used := routeNames(next)
	unused := func(name string) bool { return !used[name] }
	maps.DeleteFunc(b.raw[xds.Route], func(name string, _ config.Resource) bool { return unused(name) })
	if slices.ContainsFunc(slices.Collect(maps.Keys(next.Routes)), unused) {
		next.Routes = maps.Clone(next.Routes)
		maps.DeleteFunc(next.Routes, func(name string, _ *config.RouteTable) bool { return unused(name) })
	}
}

func routeNames(c *config.Config) map[string]bool {
	used := map[string]bool{}
	for _, listener := range c.Listeners {
		for _, chain := range append(listener.Chains[:len(listener.Chains):len(listener.Chains)], listener.Default) {
			if chain != nil && chain.HTTP != nil && chain.HTTP.RouteName != "" {
				used[chain.HTTP.RouteName] = true
			}
		}
	}
	return used
}

// ready: listeners have come (and so, by the order of xDS, clusters before them), and whatever they refer to.
func (b *Builder) ready(c *config.Config) bool {
	if !b.answered[xds.Listener] {
		return false
	}
	for name := range routeNames(c) {
		if c.Routes[name] == nil {
			return false
		}
	}
	for _, cluster := range c.Clusters {
		if cluster.Endpoints == nil {
			return false
		}
	}
	return true
}
