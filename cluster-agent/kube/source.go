package kube

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Source is the API server as a source of the agent.
type Source struct {
	config     Config
	connection *rest.Config
	metrics    *metrics
	engine     *engine
	synced     chan struct{}

	// Of the loop alone.
	announced *mesh.Snapshot
	cluster   *mesh.Cluster
	regions   map[string]bool // foreign ones that were told
}

// New reads the kubeconfig; the API server is not asked before Run.
func New(c Config) (*Source, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	connection, err := c.connection()
	if err != nil {
		return nil, err
	}
	m := newMetrics(c.Metrics)
	return &Source{
		config: c, connection: connection, metrics: m, engine: newEngine(m), synced: make(chan struct{}),
		announced: mesh.Empty, regions: map[string]bool{},
	}, nil
}

// Layer is the source's place among the others.
func (s *Source) Layer() own.Source { return own.Kubernetes }

// Synced is closed once everything that the API server had was told.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Run follows the API server until ctx is done.
func (s *Source) Run(ctx context.Context, sink clusteragent.Sink) error {
	s.unjoin(sink)
	group, ctx := errgroup.WithContext(ctx)
	var core *typed
	for _, k := range kinds() {
		client, err := newTyped(s.connection, k)
		if err != nil {
			return fmt.Errorf("kubernetes: %s: %w", k.name, err)
		}
		core = client
		f := &follower{kind: k, lister: client, engine: s.engine, log: s.config.Log, metrics: s.metrics}
		group.Go(func() error { f.run(ctx); return nil })
	}
	client, err := dynamic.NewForConfig(s.connection)
	if err != nil {
		return fmt.Errorf("kubernetes: %s: %w", exportResource, err)
	}
	x := &exporter{core: core, dynamic: client, engine: s.engine, log: s.config.Log, metrics: s.metrics, patience: patienceWith(sink.Held())}
	group.Go(func() error { return x.run(ctx) })
	group.Go(func() error { return s.loop(ctx, sink) })
	return group.Wait()
}

// unjoin takes back, of what the disk says, the endpoints that stand in place of what sidecars announced: the disk has
// those announcements as well, and until the first list nothing here would follow them.
func (s *Source) unjoin(sink clusteragent.Sink) {
	var d mesh.Delta
	for _, object := range sink.Held() {
		if slice, ok := object.(*mesh.EndpointSlice); ok && convert.Joined(slice.Slice) {
			d.Deletes = append(d.Deletes, slice.Key())
		}
	}
	sink.Apply(d)
}

// loop tells what changed: the first change at once, and what comes within Spacing of it together.
func (s *Source) loop(ctx context.Context, sink clusteragent.Sink) error {
	began := time.Now()
	first := true
	for {
		cluster, registered := sink.WatchCluster()
		layer, announced := sink.Announced().Latest()
		s.note(cluster, layer)
		start := time.Now()
		d, news, ok := s.engine.step(convert.Environment{Cluster: cluster, Announced: announcedOf(layer)})
		changed := len(d.Upserts)+len(d.Deletes) > 0
		switch {
		case ok && first:
			first = false
			sink.Replace(s.engine.everything())
			s.finish(began)
		case changed:
			sink.Apply(d)
		}
		if ok && changed {
			s.metrics.steps.Inc()
			s.metrics.converted.Observe(time.Since(start).Seconds())
		}
		s.report(cluster, news)
		if !pause(ctx, s.config.Spacing, changed) {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.engine.wake:
		case <-registered:
		case <-announced:
		}
	}
}

// pause gathers what follows a change; false: ctx is done.
func pause(ctx context.Context, spacing time.Duration, changed bool) bool {
	if !changed {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(spacing):
		return true
	}
}

// note wants looked at what another registration and newer announcements may change.
func (s *Source) note(cluster *mesh.Cluster, layer *mesh.Snapshot) {
	services := map[mesh.ServiceName]bool{}
	for key := range mesh.Diff(s.announced, layer) {
		if service, _, ok := key.Service(); ok {
			services[service] = true
		}
	}
	s.engine.markServices(services, cluster != s.cluster)
	s.announced, s.cluster = layer, cluster
}

func (s *Source) finish(began time.Time) {
	took := time.Since(began)
	s.metrics.synced.Set(1)
	s.metrics.initialSync.Set(took.Seconds())
	objects, _ := s.engine.counts()
	s.config.Log.Info("kubernetes is in sync", "took", took.Round(time.Millisecond), "services", objects["services"],
		"endpointslices", objects["endpointslices"], "pods", objects["pods"], "nodes", objects["nodes"], "serviceexports", objects["serviceexports"])
	close(s.synced)
}

// maxNews bounds the lines for one step; the metrics count everything.
const maxNews = 10

func (s *Source) report(cluster *mesh.Cluster, all []news) {
	objects, regions := s.engine.counts()
	for name, n := range objects {
		s.metrics.objects.WithLabelValues(name).Set(float64(n))
	}
	foreign := 0
	for region, nodes := range regions {
		if region == cluster.Region {
			continue
		}
		foreign += nodes
		if !s.regions[region] {
			s.regions[region] = true
			s.config.Log.Warn("nodes name another region than the cluster is registered in: their endpoints count to the registered one",
				"cluster", cluster.ID, "region", region, "registered", cluster.Region, "nodes", nodes)
		}
	}
	s.metrics.regions.Set(float64(foreign))
	for i, n := range all {
		if i == maxNews {
			s.config.Log.Warn("more Services have parts that are left out", "services", len(all)-i, "metric", "periplus_agent_kubernetes_left_out")
			break
		}
		r := n.rejections[0]
		s.config.Log.Warn("left out of the mesh", "service", n.name, "what", r.What, "reason", string(r.Reason), "why", r.Text, "more", len(n.rejections)-1)
	}
}
