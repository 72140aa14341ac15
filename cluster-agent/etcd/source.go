package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// Source is the registry in etcd as a source of an agent.
type Source struct {
	config  Config
	metrics *metrics
	synced  chan struct{}
	status  watch.Value[Status]
}

// Status is what is known of the registry.
type Status struct {
	Connected bool              `json:"connected"`
	Error     string            `json:"error,omitempty"` // why not
	Revision  int64             `json:"revision"`        // of etcd, that is in force
	Records   int               `json:"records"`
	Lost      []string          `json:"lost,omitempty"`    // about to be withdrawn
	Held      []string          `json:"held,omitempty"`    // kept although lost
	Refused   map[string]string `json:"refused,omitempty"` // key -> why its newest value is not in force
}

// New checks the configuration; etcd is not dialled before Run.
func New(c Config) (*Source, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	return &Source{config: c, metrics: newMetrics(c.Metrics), synced: make(chan struct{})}, nil
}

var _ clusteragent.Source = (*Source)(nil)

// Layer is etcd's.
func (s *Source) Layer() own.Source { return own.Etcd }

// Synced is closed after the first complete list.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Status is the latest.
func (s *Source) Status() any { return s.status.Latest() }

// Run follows the registry into sink, and writes what the agent's sidecars announce, until ctx is done.
func (s *Source) Run(ctx context.Context, sink clusteragent.Sink) error {
	client := s.connect(ctx)
	if client == nil {
		return nil
	}
	defer client.Close()
	cluster := sink.Cluster()
	root := Root(s.config.Connection.Prefix, cluster.ID)
	holder := &Holder{Client: client, Root: root, TTL: s.config.LeaseTTL, Log: s.config.Log}
	f := &follower{
		source: s, client: client, sink: sink, root: root,
		registry: newRegistry(cluster, s.config.GracePeriod, holder.Holds),
	}
	f.registry.restore(sink.Held())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.run(ctx) })
	group.Go(func() error { return s.mirror(ctx, sink, holder) })
	return group.Wait()
}

// connect returns nil when ctx is done.
func (s *Source) connect(ctx context.Context) *clientv3.Client {
	var pause pause
	for {
		client, err := s.config.Connection.Client(ctx)
		if err == nil || ctx.Err() != nil {
			return client
		}
		s.fail(err)
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// fail tells that etcd does not answer; an error is logged once, not with each attempt.
func (s *Source) fail(err error) {
	status := s.status.Latest()
	if status.Error != err.Error() {
		s.config.Log.Warn("etcd does not answer: what is known stays in force", "err", err)
	}
	status.Connected, status.Error = false, err.Error()
	s.status.Set(status)
	s.metrics.connected.Set(0)
}

// pause grows with each wait.
type pause struct{ next time.Duration }

func (p *pause) wait(ctx context.Context) bool {
	p.next = min(max(2*p.next, 100*time.Millisecond), longestPause)
	select {
	case <-ctx.Done():
		return false
	case <-time.After(p.next/2 + rand.N(p.next/2)):
		return true
	}
}

func (p *pause) reset() { p.next = 0 }

// run lists and watches, again and again.
func (f *follower) run(ctx context.Context) error {
	var pause pause
	reason := "start"
	for {
		f.source.metrics.lists.WithLabelValues(reason).Inc()
		err := f.list(ctx)
		if err == nil {
			pause.reset()
			err = f.watch(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		switch reason = reasonOf(err); reason {
		case "compacted":
			f.source.config.Log.Info("etcd is read anew", "reason", err)
			continue
		case "rewound":
			f.source.config.Log.Warn("etcd is read anew", "reason", err)
		default:
			f.source.fail(err)
		}
		if !pause.wait(ctx) {
			return nil
		}
	}
}

// Why a watch cannot go on.
var (
	errCompacted = errors.New("what comes next was compacted away")
	errRewound   = errors.New("etcd is at an older revision than it was, or is another cluster: it was restored from a backup, or the address is now another one's")
	errSilent    = errors.New("etcd is silent")
)

func reasonOf(err error) string {
	switch {
	case errors.Is(err, errCompacted):
		return "compacted"
	case errors.Is(err, errRewound):
		return "rewound"
	case errors.Is(err, errSilent):
		return "silent"
	}
	return "error"
}

// refuse tells of values that were refused.
func (s *Source) refuse(entries ...*entry) {
	for _, e := range entries {
		if e == nil {
			continue
		}
		s.metrics.refused.Inc()
		s.config.Log.Error("record in etcd refused: the last good one stays in force, if there was one", "key", e.path, "err", e.reason)
	}
}

// shown bounds the lists of a status.
const shown = 100

func (s *Source) report(f *follower) {
	status := Status{Connected: true, Revision: f.revision, Records: len(f.registry.entries), Refused: map[string]string{}}
	for path, e := range f.registry.entries {
		if e.reason != "" && len(status.Refused) < shown {
			status.Refused[path] = e.reason
		}
	}
	for path, e := range f.registry.lost {
		if e.held && len(status.Held) < shown {
			status.Held = append(status.Held, path)
		} else if !e.held && len(status.Lost) < shown {
			status.Lost = append(status.Lost, path)
		}
	}
	if before := s.status.Latest(); !before.Connected && before.Error != "" {
		s.config.Log.Info("etcd answers again", "revision", f.revision)
	}
	s.status.Set(status)
	s.metrics.connected.Set(1)
	s.metrics.count(f.registry)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("etcd: %s: %w", what, err)
}
