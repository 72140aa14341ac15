package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// Names of the two generations within the data folder.
const (
	newestName = "state.1"
	olderName  = "state.2"
)

// Config of a keeper.
type Config struct {
	// DataDir is the folder; it exists.
	DataDir string
	Table   *own.Table
	Store   *mesh.Store // the table's
	// Interval is the shortest time between two writes; 0: one second.
	Interval time.Duration
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Status of the copy.
type Status struct {
	Saved  time.Time `json:"saved,omitzero"` // zero: not yet in this process
	Loaded time.Time `json:"loadedFrom,omitzero"`
	Error  string    `json:"error,omitempty"` // of the last write
}

// Keeper keeps the copy.
type Keeper struct {
	config Config
	status watch.Value[Status]
	saved  prometheus.Gauge
	failed prometheus.Counter
	last   *mesh.Snapshot
	broken bool // the newest generation on disk is not to be kept as the older one
}

// New checks the configuration.
func New(c Config) (*Keeper, error) {
	if c.DataDir == "" || c.Table == nil || c.Store == nil || c.Log == nil || c.Metrics == nil {
		return nil, errors.New("state: data folder, table, store, log and metrics are needed")
	}
	if c.Interval <= 0 {
		c.Interval = time.Second
	}
	k := &Keeper{
		config: c,
		saved: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "periplus_agent_state_saved_timestamp_seconds", Help: "When the copy of the own cluster's state on disk was made, Unix time.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "periplus_agent_state_save_failures_total", Help: "Attempts to write the copy that failed.",
		}),
	}
	c.Metrics.MustRegister(k.saved, k.failed)
	return k, nil
}

// Status is the latest.
func (k *Keeper) Status() Status { return k.status.Latest() }

// Load returns the newest generation that is whole. ok is false if there is none; what was wrong is logged.
func (k *Keeper) Load() (c Content, ok bool) {
	for _, name := range []string{newestName, olderName} {
		path := filepath.Join(k.config.DataDir, name)
		data, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			c, err = Decode(data, k.config.Table.Owner())
		}
		if err != nil {
			k.config.Log.Error("state on disk refused; the older one is tried", "path", path, "err", err)
			k.broken = k.broken || name == newestName
			continue
		}
		k.saved.Set(float64(c.MadeAt.Unix()))
		k.status.Set(Status{Loaded: c.MadeAt})
		return c, true
	}
	return Content{}, false
}

// readFile follows no symbolic link and reads no more than a state file can have.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err == nil && len(data) > MaxBytes {
		err = fmt.Errorf("state file: more than %d bytes", MaxBytes)
	}
	return data, err
}

// longestPause is how long a disk that refused is left alone at most.
const longestPause = time.Minute

// Run writes after each change of the own cluster, at most once each Interval, and once more when ctx ends. What could
// not be written is tried again, change or not.
func (k *Keeper) Run(ctx context.Context) error {
	k.last = mesh.Empty
	pause := k.config.Interval
	for {
		snapshot, next := k.config.Store.Latest()
		saved := k.save(snapshot)
		if saved {
			pause = k.config.Interval
		}
		if !sleep(ctx, pause) || saved && !wait(ctx, next) {
			snapshot, _ = k.config.Store.Latest()
			k.save(snapshot)
			return nil
		}
		if !saved {
			pause = min(2*pause, longestPause)
		}
	}
}

// sleep and wait return false when ctx is done.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func wait(ctx context.Context, next <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case <-next:
		return true
	}
}

// save returns false if what it had to write is not on disk.
func (k *Keeper) save(snapshot *mesh.Snapshot) bool {
	if !k.changed(snapshot) {
		return true
	}
	now := time.Now()
	c := Content{Owner: k.config.Table.Owner(), MadeAt: now, Objects: map[own.Source][]mesh.Object{}}
	for _, source := range []own.Source{own.File, own.Workloads, own.Trust, own.Kubernetes, own.Etcd} {
		c.Objects[source] = k.config.Table.Layer(source)
	}
	if err := k.write(Encode(c)); err != nil {
		k.failed.Inc()
		k.config.Log.Error("state could not be written: a restart would find the older one", "err", err)
		k.status.Set(Status{Saved: k.Status().Saved, Loaded: k.Status().Loaded, Error: err.Error()})
		return false
	}
	k.last = snapshot
	k.saved.Set(float64(now.Unix()))
	k.status.Set(Status{Saved: now, Loaded: k.Status().Loaded})
	return true
}

// changed tells whether anything of the own cluster differs from what was written last.
func (k *Keeper) changed(snapshot *mesh.Snapshot) bool {
	for key := range mesh.Diff(k.last, snapshot) {
		if k.config.Table.Owner().Owns(key) {
			return true
		}
	}
	return false
}

// write keeps the newest as the older one, unless it is damaged, and then replaces it. The new one is on disk before
// either has moved, so that a disk that is full costs no generation.
func (k *Keeper) write(data []byte) error {
	newest, older := filepath.Join(k.config.DataDir, newestName), filepath.Join(k.config.DataDir, olderName)
	temporary, err := durable.Stage(newest, data)
	if err != nil {
		return err
	}
	defer os.Remove(temporary) // gone already after a rename
	if !k.broken {
		if err := os.Rename(newest, older); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(temporary, newest); err != nil {
		return err
	}
	k.broken = false
	return durable.SyncDir(k.config.DataDir)
}
