package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// Update is a change of resources of one type.
type Update struct {
	Type    xds.Type
	Upserts []Resource
	Removed []string
}

// Resource is one resource as it came.
type Resource struct {
	Name    string
	Version string
	Body    []byte // the marshalled message, without its Any; not modified, and kept for [Builder.Resources]
	// Updated is when it came.
	Updated time.Time
}

// types are what a Builder takes, in the order in which xDS servers send them.
var types = [...]xds.Type{xds.Cluster, xds.Endpoints, xds.Listener, xds.Route}

// Builder turns updates into configs. The zero value is not usable, see [NewBuilder]; it has one user at a time.
type Builder struct {
	// CheckListener and CheckCluster, if set, refuse what decodes well and is not for this proxy: the last good version
	// stays, as with what cannot be decoded. They are set before the first Apply.
	CheckListener func(*Listener) error
	CheckCluster  func(*Settings) error

	raw       map[xds.Type]map[string]Resource // accepted, by name
	answered  map[xds.Type]bool
	settings  map[string]*Settings
	inline    map[string]*Endpoints // of clusters with endpoints in them
	endpoints map[string]*Endpoints // by EDS name
	watchers  map[string][]string   // EDS name -> clusters
	latest    *Config
}

// NewBuilder returns a Builder whose latest Config is empty.
func NewBuilder() *Builder {
	b := &Builder{
		raw: map[xds.Type]map[string]Resource{}, answered: map[xds.Type]bool{},
		settings: map[string]*Settings{}, inline: map[string]*Endpoints{}, endpoints: map[string]*Endpoints{},
		watchers: map[string][]string{},
		latest:   &Config{Listeners: map[string]*Listener{}, Routes: map[string]*RouteTable{}, Clusters: map[string]*Cluster{}},
	}
	for _, t := range types {
		b.raw[t] = map[string]Resource{}
	}
	return b
}

// Latest returns the newest config.
func (b *Builder) Latest() *Config { return b.latest }

// Resources returns what is accepted of a type, sorted by name.
func (b *Builder) Resources(t xds.Type) []Resource {
	return slices.SortedFunc(maps.Values(b.raw[t]), func(a, c Resource) int { return strings.Compare(a.Name, c.Name) })
}

// Apply takes in what is good of an update and returns the next config. The error names each resource that is
// refused; its last good version stays.
func (b *Builder) Apply(u Update) (*Config, error) {
	if b.raw[u.Type] == nil {
		return b.latest, fmt.Errorf("resource type %q is not supported", u.Type)
	}
	next := &Config{Listeners: b.latest.Listeners, Routes: b.latest.Routes, Clusters: b.latest.Clusters}
	var problems []error
	b.copyOnWrite(next, u.Type)
	for _, name := range u.Removed {
		b.remove(next, u.Type, name)
	}
	for _, r := range u.Upserts {
		if err := b.upsert(next, u.Type, r); err != nil {
			problems = append(problems, Refusal{u.Type, r.Name, err})
		}
	}
	b.answered[u.Type] = true
	b.forget(next, u.Type)
	next.Ready = b.ready(next)
	b.latest = next
	return next, errors.Join(problems...)
}

// Refusal is why one resource was not taken in.
type Refusal struct {
	Type xds.Type
	Name string
	Err  error
}

func (r Refusal) Error() string { return fmt.Sprintf("%s %q: %v", short(r.Type), r.Name, r.Err) }
func (r Refusal) Unwrap() error { return r.Err }

// Refused is the resource's name.
func (r Refusal) Refused() string { return r.Name }

// short is the last part of a type URL: "Cluster".
func short(t xds.Type) string { return string(t[strings.LastIndexByte(string(t), '.')+1:]) }

func (b *Builder) copyOnWrite(next *Config, t xds.Type) {
	switch t {
	case xds.Cluster, xds.Endpoints:
		next.Clusters = maps.Clone(next.Clusters)
	case xds.Listener:
		next.Listeners = maps.Clone(next.Listeners)
	case xds.Route:
		next.Routes = maps.Clone(next.Routes)
	}
}

func (b *Builder) upsert(next *Config, t xds.Type, r Resource) error {
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

func (b *Builder) decode(next *Config, t xds.Type, r Resource) error {
	p := newProblems()
	switch t {
	case xds.Cluster:
		return b.setCluster(next, p, r)
	case xds.Endpoints:
		pb := new(endpointv3.ClusterLoadAssignment)
		if err := unmarshal(r, pb, pb.GetClusterName); err != nil {
			return err
		}
		endpoints := decodeEndpoints(p, pb, false)
		if p.err() == nil {
			b.setEndpoints(next, r.Name, endpoints)
		}
	case xds.Listener:
		pb := new(listenerv3.Listener)
		if err := unmarshal(r, pb, pb.GetName); err != nil {
			return err
		}
		listener := decodeListener(p, pb)
		if p.err() != nil {
			return p.err()
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
		table := decodeRouteTable(p, pb)
		if p.err() == nil {
			next.Routes[r.Name] = table
		}
	}
	return p.err()
}

// check asks a proxy that has something to say.
func check[T any](ask func(T) error, what T) error {
	if ask == nil {
		return nil
	}
	return ask(what)
}

// unmarshal also checks that the resource is called what the transport calls it.
func unmarshal(r Resource, pb proto.Message, name func() string) error {
	if err := proto.Unmarshal(r.Body, pb); err != nil {
		return errors.New("cannot be decoded")
	}
	if name() != r.Name || r.Name == "" {
		return fmt.Errorf("calls itself %q", name())
	}
	return nil
}

func (b *Builder) setCluster(next *Config, p problems, r Resource) error {
	pb := new(clusterv3.Cluster)
	if err := unmarshal(r, pb, pb.GetName); err != nil {
		return err
	}
	settings, inline := decodeCluster(p, pb)
	if p.err() != nil {
		return p.err()
	}
	if err := check(b.CheckCluster, settings); err != nil {
		return err
	}
	b.unwatch(r.Name)
	b.settings[r.Name] = settings
	delete(b.inline, r.Name)
	if settings.Discovery == EDS {
		b.watchers[settings.EDSName] = append(b.watchers[settings.EDSName], r.Name)
	} else {
		b.inline[r.Name] = inline
	}
	b.join(next, r.Name)
	return nil
}

// join makes a cluster of its parts.
func (b *Builder) join(next *Config, name string) {
	settings := b.settings[name]
	endpoints := b.inline[name]
	if settings.Discovery == EDS {
		endpoints = b.endpoints[settings.EDSName]
	}
	next.Clusters[name] = &Cluster{Name: name, Settings: settings, Endpoints: endpoints}
}

func (b *Builder) setEndpoints(next *Config, name string, endpoints *Endpoints) {
	b.endpoints[name] = endpoints
	for _, cluster := range b.watchers[name] {
		b.join(next, cluster)
	}
}

func (b *Builder) unwatch(cluster string) {
	if old := b.settings[cluster]; old != nil && old.Discovery == EDS {
		rest := slices.DeleteFunc(b.watchers[old.EDSName], func(name string) bool { return name == cluster })
		if b.watchers[old.EDSName] = rest; len(rest) == 0 {
			delete(b.watchers, old.EDSName)
		}
	}
}

// remove believes the removal of clusters and listeners. Endpoints and routes that are there go in forget, with the last
// that refers to them; of others it is now known that there are none, and nobody waits for them any longer.
func (b *Builder) remove(next *Config, t xds.Type, name string) {
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
			b.setEndpoints(next, name, &Endpoints{Name: name, Overprovisioning: defaultOverprovisioning})
		}
	case xds.Route:
		if next.Routes[name] == nil {
			next.Routes[name] = &RouteTable{Name: name}
		}
	}
}

// forget drops endpoints and routes that nothing refers to any more.
func (b *Builder) forget(next *Config, t xds.Type) {
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

func (b *Builder) forgetRoutes(next *Config) {
	if !b.answered[xds.Listener] {
		return
	}
	used := routeNames(next)
	unused := func(name string) bool { return !used[name] }
	maps.DeleteFunc(b.raw[xds.Route], func(name string, _ Resource) bool { return unused(name) })
	if slices.ContainsFunc(slices.Collect(maps.Keys(next.Routes)), unused) {
		next.Routes = maps.Clone(next.Routes)
		maps.DeleteFunc(next.Routes, func(name string, _ *RouteTable) bool { return unused(name) })
	}
}

func routeNames(c *Config) map[string]bool {
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
func (b *Builder) ready(c *Config) bool {
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
