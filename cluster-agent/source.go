package clusteragent

import (
	"context"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Source tells an agent of its own cluster's services and endpoints, beside the services file and the sidecars.
type Source interface {
	// Layer is the source's place among the others; each source has one of its own.
	Layer() own.Source
	// Run tells sink what there is and every change, until ctx is done; then it returns nil. What it cannot reach it
	// does not take back: the last that it told stays in force. It returns an error only if it can never work.
	Run(ctx context.Context, sink Sink) error
	// Synced is closed once sink was told everything that there was when Run began.
	Synced() <-chan struct{}
}

// Sink takes what one source says. Objects of other clusters make it panic.
type Sink struct {
	table   *own.Table
	layer   own.Source
	cluster func() (*mesh.Cluster, <-chan struct{})
}

// NewSink is a sink into layer of table; cluster is the own cluster and a channel closed when it is registered anew.
func NewSink(table *own.Table, layer own.Source, cluster func() (*mesh.Cluster, <-chan struct{})) Sink {
	return Sink{table, layer, cluster}
}

// Cluster is the own cluster as it is registered now: its networks, its namespaces, its region.
func (s Sink) Cluster() *mesh.Cluster { cluster, _ := s.cluster(); return cluster }

// WatchCluster is Cluster, and a channel that is closed when it is registered otherwise.
func (s Sink) WatchCluster() (*mesh.Cluster, <-chan struct{}) { return s.cluster() }

// Held is everything that the source is taken to say now: at first what it said before a restart.
func (s Sink) Held() []mesh.Object { return s.table.Layer(s.layer) }

// Announced is what the cluster's sidecars and gateways say of themselves, whatever other sources say of it.
func (s Sink) Announced() *mesh.Store { return s.table.Watch(own.Workloads) }

// Replace makes objects all that the source says: what it said beside them is gone.
func (s Sink) Replace(objects []mesh.Object) { s.table.Replace(s.layer, objects) }

// Apply changes what the source says.
func (s Sink) Apply(d mesh.Delta) { s.table.Apply(s.layer, d) }

func (a *agent) runSource(ctx context.Context, source Source) error {
	return source.Run(ctx, NewSink(a.table, source.Layer(), a.credential.WatchCluster))
}

// sourcesSynced waits until all sources have told what there is; false: ctx was done before.
func (a *agent) sourcesSynced(ctx context.Context) bool {
	waits := make([]<-chan struct{}, 0, len(a.config.Sources)+1)
	for _, source := range a.config.Sources {
		waits = append(waits, source.Synced())
	}
	if a.file != nil {
		waits = append(waits, a.file.Synced())
	}
	for _, wait := range waits {
		select {
		case <-wait:
		case <-ctx.Done():
			return false
		}
	}
	return true
}
