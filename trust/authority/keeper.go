package authority

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/watch"
)

// keeper holds the latest state and is the only one to change it: save, then publish.
type keeper struct {
	domain  spiffeid.TrustDomain
	hint    time.Duration // refresh hint of the own bundle
	path    string
	log     *slog.Logger
	metrics *metrics
	latest  watch.Value[*state]
	writer  sync.Mutex // held while a change is made, saved and published
}

func openKeeper(c Config, m *metrics) (*keeper, error) {
	k := &keeper{
		domain: c.TrustDomain, path: filepath.Join(c.DataDir, "authority.json"), log: c.Log, metrics: m,
		hint: max(time.Second, min(5*time.Minute, c.CATTL/20)),
	}
	s := newState()
	data, err := os.ReadFile(k.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("state: %w", err)
	default:
		if s, err = decodeState(c.TrustDomain, data); err != nil {
			return nil, fmt.Errorf("state %s: %w", k.path, err)
		}
	}
	k.publish(s)
	return k, nil
}

// update changes a copy, which becomes the state if change returns nil and the copy could be saved.
// After an error nothing has changed.
func (k *keeper) update(change func(*state) error) error {
	k.writer.Lock()
	defer k.writer.Unlock()
	now := k.latest.Latest()
	next := now.clone()
	if err := change(next); err != nil {
		return err
	}
	if !next.sameBundle(now) {
		next.sequence++
	}
	if err := save(k.path, k.domain, next); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	k.publish(next)
	return nil
}

func (k *keeper) publish(s *state) {
	k.metrics.sequence.Set(float64(s.sequence))
	if r := s.in(active); r != nil {
		k.metrics.expiry.Set(float64(r.certificate.NotAfter.Unix()))
	}
	k.latest.Set(s)
}

func save(path string, domain spiffeid.TrustDomain, s *state) error {
	data, err := encodeState(domain, s)
	if err != nil {
		return err
	}
	return writeAtomic(path, data)
}

// writeAtomic leaves either the old file or the new one, whatever happens, readable by the own user only.
func writeAtomic(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
