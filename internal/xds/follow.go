package xds

import (
	"fmt"
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// Followed is the type whose names follow from resources of type t: endpoints from clusters, routes from listeners.
func Followed(t Type) (Type, bool) {
	switch t {
	case Cluster:
		return Endpoints, true
	case Listener:
		return Route, true
	}
	return "", false
}

// References returns the names, of type [Followed](t), that a resource refers to.
func References(t Type, body []byte) ([]string, error) {
	switch t {
	case Cluster:
		return endpointsOf(body)
	case Listener:
		return routesOf(body)
	}
	return nil, nil
}

func endpointsOf(body []byte) ([]string, error) {
	var cluster clusterv3.Cluster
	if err := proto.Unmarshal(body, &cluster); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if cluster.GetType() != clusterv3.Cluster_EDS {
		return nil, nil
	}
	if name := cluster.GetEdsClusterConfig().GetServiceName(); name != "" {
		return []string{name}, nil
	}
	return []string{cluster.GetName()}, nil
}

func routesOf(body []byte) ([]string, error) {
	var listener listenerv3.Listener
	if err := proto.Unmarshal(body, &listener); err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	chains := listener.GetFilterChains()
	if c := listener.GetDefaultFilterChain(); c != nil {
		chains = append(chains[:len(chains):len(chains)], c)
	}
	var names []string
	for _, chain := range chains {
		for _, filter := range chain.GetFilters() {
			name, err := routeOf(filter)
			if err != nil {
				return nil, fmt.Errorf("listener %q: filter %q: %w", listener.GetName(), filter.GetName(), err)
			}
			if name != "" {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

func routeOf(filter *listenerv3.Filter) (string, error) {
	config := filter.GetTypedConfig()
	if !config.MessageIs((*hcmv3.HttpConnectionManager)(nil)) {
		return "", nil
	}
	var hcm hcmv3.HttpConnectionManager
	if err := proto.Unmarshal(config.GetValue(), &hcm); err != nil {
		return "", err
	}
	return hcm.GetRds().GetRouteConfigName(), nil
}

// Follower counts who refers to what. The zero Follower is ready to use.
type Follower struct {
	references map[string][]string // parent -> children
	count      map[string]int      // child -> parents
	touched    map[string]bool     // children whose count changed since Changes
}

// Set replaces a parent's children; nil removes the parent.
func (f *Follower) Set(parent string, children []string) {
	if f.count == nil {
		f.references, f.count = make(map[string][]string), make(map[string]int)
		f.touched = make(map[string]bool)
	}
	f.add(children, 1)
	f.add(f.references[parent], -1)
	f.references[parent] = children
	if len(children) == 0 {
		delete(f.references, parent)
	}
}

func (f *Follower) add(children []string, n int) {
	for _, child := range children {
		f.count[child] += n
		f.touched[child] = true
	}
}

// Changes returns what is referred to and not yet subscribed, and what is subscribed and no longer referred to,
// among the children that were set since the last call.
func (f *Follower) Changes(subscribed func(string) bool) (add, remove []string) {
	for _, child := range slices.Sorted(maps.Keys(f.touched)) {
		referred := f.count[child] > 0
		if !referred {
			delete(f.count, child)
		}
		switch {
		case referred && !subscribed(child):
			add = append(add, child)
		case !referred && subscribed(child):
			remove = append(remove, child)
		}
	}
	clear(f.touched)
	return add, remove
}
