package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/internal/watch"
)

// Records are values by path, below a Holder's Root.
type Records map[string][]byte

// ErrGone is a record that somebody deleted although its holder keeps it.
var ErrGone = errors.New("deleted by somebody else")

// Holder keeps records in etcd under one lease.
type Holder struct {
	Client *clientv3.Client
	Root   string
	// TTL of the lease, whole seconds: after so long without its holder a record is gone.
	TTL time.Duration
	// Exclusive: end with ErrGone when somebody else deleted or took over a record; else write it again.
	Exclusive bool
	// OnWrite is told of every state that was written whole; nil: nobody.
	OnWrite func(records int)
	// OnLease is told of every lease that was taken; nil: nobody.
	OnLease func()
	Log     *slog.Logger

	lease   clientv3.LeaseID
	renewed time.Time
	written Records // under lease; a nil value may or may not be there

	mu     sync.Mutex
	leases map[int64]bool // every one that it had; guarded by mu
}

// Holds tells whether lease is or was this holder's. Safe for concurrent use.
func (h *Holder) Holds(lease int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leases[lease]
}

// Run keeps what records says, until ctx is done; then it leaves everything to the lease and returns nil. Whatever
// etcd does meanwhile, it goes on trying.
func (h *Holder) Run(ctx context.Context, records *watch.Value[Records]) error {
	var pause pause
	failing := false
	for {
		want, changed := records.Get()
		err := h.step(ctx, want)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, ErrGone) {
			return err
		}
		if err != nil {
			if !failing {
				h.Log.Warn("etcd does not take records: trying on", "err", err)
			}
			failing = true
			if !pause.wait(ctx) {
				return nil
			}
			continue
		}
		if failing {
			h.Log.Info("etcd takes records again")
		}
		failing = false
		pause.reset()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-time.After(time.Until(h.renewed.Add(h.TTL / 3))):
		}
	}
}

// step takes a lease if there is none, renews it if it is time, and writes what differs.
func (h *Holder) step(ctx context.Context, want Records) error {
	// A member that does not answer must leave time to ask another one.
	ctx, cancel := context.WithTimeout(ctx, min(requestTimeout, max(h.TTL/3, time.Second)))
	defer cancel()
	err := h.renew(ctx, time.Now())
	if err == nil {
		err = h.write(ctx, want)
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		h.Log.Warn("lease in etcd lost: taking another")
		h.lease = 0
		if err = h.renew(ctx, time.Now()); err == nil {
			err = h.write(ctx, want)
		}
	}
	return err
}

func (h *Holder) renew(ctx context.Context, now time.Time) error {
	if h.lease == 0 {
		return h.grant(ctx, now)
	}
	if now.Sub(h.renewed) < h.TTL/3 {
		return nil
	}
	if _, err := h.Client.KeepAliveOnce(ctx, h.lease); err != nil {
		return wrap("lease", err)
	}
	h.renewed = now
	return h.verify(ctx)
}

func (h *Holder) grant(ctx context.Context, now time.Time) error {
	response, err := h.Client.Grant(ctx, int64(h.TTL.Seconds()))
	if err != nil {
		return wrap("lease", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.leases == nil {
		h.leases = map[int64]bool{}
	}
	h.lease, h.renewed, h.written = response.ID, now, Records{}
	h.leases[int64(response.ID)] = true
	if h.OnLease != nil {
		h.OnLease()
	}
	return nil
}

// verify compares what is under the lease with what was written.
func (h *Holder) verify(ctx context.Context) error {
	response, err := h.Client.TimeToLive(ctx, h.lease, clientv3.WithAttachedKeys())
	if err != nil {
		return wrap("lease", err)
	}
	if response.TTL <= 0 {
		return wrap("lease", rpctypes.ErrLeaseNotFound)
	}
	there := map[string]bool{}
	for _, key := range response.Keys {
		there[string(key)] = true
	}
	for path := range h.written {
		switch {
		case there[h.Root+path] || h.written[path] == nil:
		case h.Exclusive:
			return fmt.Errorf("etcd: %s: %w", h.Root+path, ErrGone)
		default:
			delete(h.written, path)
		}
	}
	return nil
}

// transaction is how many keys etcd lets one change by default.
const transaction = 100

// write makes etcd have want. After an error, what it tried is unknown, and done again next time.
func (h *Holder) write(ctx context.Context, want Records) error {
	var ops []clientv3.Op
	var paths []string
	for path, value := range want {
		if written, ok := h.written[path]; !ok || written == nil || !bytes.Equal(written, value) {
			ops = append(ops, clientv3.OpPut(h.Root+path, string(value), clientv3.WithLease(h.lease)))
			paths = append(paths, path)
		}
	}
	for path := range h.written {
		if _, ok := want[path]; !ok {
			ops = append(ops, clientv3.OpDelete(h.Root+path))
			paths = append(paths, path)
		}
	}
	for len(ops) > 0 {
		n := min(len(ops), transaction)
		for _, path := range paths[:n] {
			h.written[path] = nil
		}
		if _, err := h.Client.Txn(ctx).Then(ops[:n]...).Commit(); err != nil {
			return wrap("write", err)
		}
		for _, path := range paths[:n] {
			if value, ok := want[path]; ok {
				h.written[path] = value
			} else {
				delete(h.written, path)
			}
		}
		ops, paths = ops[n:], paths[n:]
	}
	if h.OnWrite != nil {
		h.OnWrite(len(h.written))
	}
	return nil
}

// Release writes last, so that readers know the records' end from a loss, and ends the lease and all that is under
// it. Call it after Run.
func (h *Holder) Release(ctx context.Context, last Records) error {
	if h.lease == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := h.write(ctx, last)
	if err == nil {
		_, err = h.Client.Revoke(ctx, h.lease)
	}
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return wrap("release", err)
}

// Deregister takes a workload out. It is taken from its lease first, so that readers know its end from the lease's.
// The error is os.ErrNotExist if it is not there.
func Deregister(ctx context.Context, client *clientv3.Client, root string, name Name) error {
	key := root + name.Path()
	response, err := client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), ">", 0)).
		Then(clientv3.OpPut(key, "", clientv3.WithIgnoreValue())).Commit()
	if err == nil && !response.Succeeded {
		err = os.ErrNotExist
	}
	if err == nil {
		_, err = client.Delete(ctx, key)
	}
	return wrap("deregister", err)
}
