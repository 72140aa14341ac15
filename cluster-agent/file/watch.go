package file

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// Config of the source.
type Config struct {
	// Path of the file.
	Path string
	// Every is how often it is read; 0: one second.
	Every time.Duration
	// Cluster is the own cluster, as registered; never nil.
	Cluster func() *mesh.Cluster
	// Apply takes the file's whole content, each time it changed and is good.
	Apply   func([]mesh.Object)
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Status is what is known of the file.
type Status struct {
	Path    string    `json:"path"`
	Objects int       `json:"objects"`           // in force
	Error   string    `json:"error,omitempty"`   // why the file as it is now is not in force
	Applied time.Time `json:"applied,omitzero"`  // zero: never
	Checked time.Time `json:"lastRead,omitzero"` // last attempt to read
	Errors  uint64    `json:"errors"`            // versions refused since start
}

// Watcher reads the file again and again.
type Watcher struct {
	config  Config
	metrics *metrics
	status  watch.Value[Status]
	synced  chan struct{}

	last, candidate []byte // what was judged last; what was read once and differs; nil: nothing
	judged          bool
	cluster         *mesh.Cluster // it was judged with
}

// New checks the configuration; nothing is read before Run.
func New(c Config) (*Watcher, error) {
	if c.Path == "" || c.Cluster == nil || c.Apply == nil || c.Log == nil || c.Metrics == nil {
		return nil, fmt.Errorf("services file: path, cluster, apply, log and metrics are needed")
	}
	if c.Every <= 0 {
		c.Every = time.Second
	}
	w := &Watcher{config: c, metrics: newMetrics(c.Metrics), synced: make(chan struct{})}
	w.status.Set(Status{Path: c.Path})
	return w, nil
}

// Synced is closed once a good file has been applied.
func (w *Watcher) Synced() <-chan struct{} { return w.synced }

// Status is the latest.
func (w *Watcher) Status() Status { return w.status.Latest() }

// Run reads until ctx is done.
func (w *Watcher) Run(ctx context.Context) error {
	for {
		wait := w.config.Every
		if w.step() {
			wait = min(wait, confirmAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// confirmAfter is how long a change must stay the same to count.
const confirmAfter = 50 * time.Millisecond

// step reads once. It returns whether what was read must be read again before it counts.
func (w *Watcher) step() bool {
	data, err := read(w.config.Path)
	if err != nil {
		w.judged, w.candidate = false, nil // what comes back is judged anew, even if it is what was there
		w.refuse(fmt.Errorf("services file: %w", err))
		return false
	}
	cluster := w.config.Cluster()
	if w.judged && bytes.Equal(data, w.last) && cluster == w.cluster {
		w.update(func(*Status) {})
		w.candidate = nil
		return false
	}
	if w.candidate == nil || !bytes.Equal(data, w.candidate) {
		w.candidate = data
		return true
	}
	w.judge(data, cluster)
	return false
}

func (w *Watcher) judge(data []byte, cluster *mesh.Cluster) {
	w.last, w.candidate, w.judged, w.cluster = data, nil, true, cluster
	objects, err := Parse(w.config.Path, data, cluster)
	if err == nil && len(objects) == 0 && w.Status().Objects > 0 {
		err = fmt.Errorf("%s: is empty now: to withdraw all %d objects, restart the agent with the empty file", w.config.Path, w.Status().Objects)
	}
	if err != nil {
		w.refuse(err)
		return
	}
	w.config.Apply(objects)
	w.config.Log.Info("services file applied", "path", w.config.Path, "objects", len(objects))
	w.metrics.applied.SetToCurrentTime()
	w.metrics.bad.Set(0)
	w.update(func(s *Status) { s.Objects, s.Error, s.Applied = len(objects), "", time.Now() })
	select {
	case <-w.synced:
	default:
		close(w.synced)
	}
}

// refuse keeps what is in force. An error is logged once, not each second.
func (w *Watcher) refuse(err error) {
	w.metrics.bad.Set(1)
	if w.Status().Error != err.Error() {
		w.metrics.refused.Inc()
		w.config.Log.Error("services file refused: the last good one stays in force", "path", w.config.Path, "err", err)
		w.update(func(s *Status) { s.Error, s.Errors = err.Error(), s.Errors+1 })
		return
	}
	w.update(func(*Status) {})
}

func (w *Watcher) update(change func(*Status)) {
	s := w.Status()
	s.Checked = time.Now()
	change(&s)
	w.status.Set(s)
}

// read returns at most one byte more than a good file has.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes+1)) // never nil without an error
}
