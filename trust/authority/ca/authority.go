package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"

	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// Config of an authority. All fields but Metrics are needed.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	// Dir is the folder of the state; it exists, and nobody else writes there.
	Dir string
	// Life of a root.
	Life    time.Duration
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: none
}

// Authority holds the latest state and is the only one to change it: save, then publish. Safe for concurrent use.
type Authority struct {
	config  Config
	path    string
	metrics *metrics
	latest  watch.Value[*State]
	writer  sync.Mutex // held while a change is made, saved and published
}

// Open reads the folder's state or begins one. There is a root that signs when it returns.
func Open(c Config) (*Authority, error) {
	a, err := open(c)
	if err != nil {
		return nil, err
	}
	return a, a.step()
}

func open(c Config) (*Authority, error) {
	a := &Authority{config: c, path: filepath.Join(c.Dir, "authority.json"), metrics: newMetrics(c.Metrics)}
	if err := durable.Sweep(c.Dir); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s := newState()
	data, err := os.ReadFile(a.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("state: %w", err)
	default:
		if s, err = decodeState(c.TrustDomain, data); err != nil {
			return nil, fmt.Errorf("state %s: %w", a.path, err)
		}
	}
	a.publish(s)
	return a, nil
}

// TrustDomain is the one that is issued.
func (a *Authority) TrustDomain() spiffeid.TrustDomain { return a.config.TrustDomain }

// Latest is the state in force.
func (a *Authority) Latest() *State { return a.latest.Latest() }

// Watch is Latest, and a channel that is closed when another is in force.
func (a *Authority) Watch() (*State, <-chan struct{}) { return a.latest.Get() }

// Update changes a copy, which becomes the state if change returns nil and the copy could be saved. After an error
// nothing has changed.
func (a *Authority) Update(change func(*State) error) error {
	a.writer.Lock()
	defer a.writer.Unlock()
	now := a.Latest()
	next := now.clone()
	if err := change(next); err != nil {
		return err
	}
	if !next.sameBundle(now) {
		next.sequence++
	}
	data, err := encodeState(a.config.TrustDomain, next)
	if err == nil {
		err = durable.Write(a.path, data)
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	a.publish(next)
	return nil
}

func (a *Authority) publish(s *State) {
	a.metrics.sequence.Set(float64(s.sequence))
	if r := s.In(Active); r != nil {
		a.metrics.expiry.Set(float64(r.NotAfter().Unix()))
	}
	a.latest.Set(s)
}

// NewRoot makes a root that is in no bundle yet.
func (a *Authority) NewRoot() (*Root, error) { return a.newRoot(time.Now()) }

func (a *Authority) newRoot(now time.Time) (*Root, error) {
	return newRoot(a.config.TrustDomain, now, a.config.Life)
}

// Bundle is the own bundle of s as the SPIRE API shows it.
func (a *Authority) Bundle(s *State) *types.Bundle {
	hint := max(time.Second, min(5*time.Minute, a.config.Life/20))
	b := &types.Bundle{TrustDomain: a.config.TrustDomain.Name(), SequenceNumber: s.sequence, RefreshHint: int64(hint / time.Second)}
	for _, r := range s.roots {
		b.X509Authorities = append(b.X509Authorities, &types.X509Certificate{Asn1: r.certificate.Raw, Tainted: r.tainted})
	}
	return b
}
