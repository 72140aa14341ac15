package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
)

const (
	pageSize   = 500
	minBackoff = 100 * time.Millisecond
	maxBackoff = time.Second // an API server that came back is noticed within
	steady     = time.Minute // a watch that lasted so long was a good one
)

// follower keeps the engine's records of one kind as the API server has them. It is also the reflector's store, and
// what the reflector lists and watches with.
type follower struct {
	kind    kind
	lister  lister
	engine  *engine
	log     *slog.Logger
	metrics *metrics

	mu    sync.Mutex // guards what follows
	state reason     // of the last attempt
	began bool       // there was one
}

// reason is how an attempt ended; also the label of a metric.
type reason string

const (
	fine        reason = ""
	unreachable reason = "unreachable"
	expired     reason = "expired"
	forbidden   reason = "forbidden"
	absent      reason = "absent"
	other       reason = "other"
)

func classify(err error) reason {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		return fine
	case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
		return expired
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return forbidden
	case apierrors.IsNotFound(err):
		return absent
	case apierrors.IsServiceUnavailable(err) || apierrors.IsTooManyRequests(err) || apierrors.IsTimeout(err) || !errors.As(err, &status):
		return unreachable
	}
	return other
}

func (r reason) cure() string {
	switch r {
	case unreachable:
		return "it is tried again; look at the API server and at the network to it"
	case forbidden:
		return "give the agent's account the rights of 'periplus cluster register NAME --kubernetes'"
	case absent:
		return "nothing is exported until the API server knows ServiceExports: 'periplus cluster register NAME --kubernetes --crds' prints their definition"
	}
	return "it is tried again"
}

// run follows until ctx is done; of an optional resource it returns absent when that is not served.
func (f *follower) run(ctx context.Context) reason {
	ctx = klog.NewContext(ctx, logr.Discard()) // what goes wrong is told by this package, once
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		reflector := cache.NewReflectorWithOptions(f, f.kind.example, f, cache.ReflectorOptions{Name: f.kind.name})
		reflector.WatchListPageSize = pageSize
		err := f.follow(ctx, reflector)
		if f.kind.optional && classify(err) == absent {
			return absent
		}
		if time.Since(began) > steady {
			backoff = minBackoff
		}
		sleep(ctx, backoff)
		backoff = min(2*backoff, maxBackoff)
	}
	return fine
}

// follow lists and watches with one reflector, until that needs a new list.
func (f *follower) follow(ctx context.Context, reflector *cache.Reflector) error {
	err := reflector.ListAndWatchWithContext(ctx)
	if err != nil && ctx.Err() == nil {
		f.note(err)
	}
	return err
}

// sleep waits for about d.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d)):
	}
}

// note takes how an attempt ended. What stays as it was is not logged again.
func (f *follower) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := classify(err)
	if now != fine {
		f.metrics.failures.WithLabelValues(f.kind.name, string(now)).Inc()
	}
	if now == f.state && f.began {
		return
	}
	f.state, f.began = now, true
	switch now {
	case fine:
		f.metrics.watching.WithLabelValues(f.kind.name).Set(1)
		f.log.Info("kubernetes resource is watched", "resource", f.kind.name)
	case expired:
		f.log.Info("kubernetes watch expired: the resource is listed anew, and until then stays as it is", "resource", f.kind.name)
	default:
		f.metrics.watching.WithLabelValues(f.kind.name).Set(0)
		cure := now.cure()
		if now == absent && !f.kind.optional {
			cure = "it is tried again; look at what answers in place of the API server"
		}
		f.log.Warn("kubernetes resource cannot be followed: what is known stays in force", "resource", f.kind.name, "reason", string(now), "cure", cure, "err", err)
	}
}

// persist repeats call while the API server cannot be reached. The reflector would do so too, but ever more slowly,
// up to a minute.
func persist[T any](ctx context.Context, f *follower, call func() (T, error)) (T, error) {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		out, err := call()
		if ctx.Err() == nil && err != nil {
			f.note(err)
		}
		if err == nil || classify(err) != unreachable || ctx.Err() != nil {
			return out, err
		}
		sleep(ctx, backoff)
	}
}

// ListWithContext is for the reflector. It reads what is there, in pages: a list that may be old comes in one piece,
// whatever its size.
func (f *follower) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	if o.ResourceVersion == "0" {
		o.ResourceVersion = ""
	}
	return persist(ctx, f, func() (runtime.Object, error) { return f.lister.list(ctx, o) })
}

// WatchWithContext is for the reflector.
func (f *follower) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	stream, err := persist(ctx, f, func() (watch.Interface, error) { return f.lister.watch(ctx, o) })
	if err != nil {
		return nil, err
	}
	good := o.SendInitialEvents == nil // otherwise it is also asked for the list, and has yet to show that it can
	if good {
		f.note(nil)
	}
	return watch.Filter(stream, func(event watch.Event) (watch.Event, bool) {
		good = f.heard(event, good)
		return event, true
	}), nil
}

// heard takes note of an event of a stream that was good or not, and returns whether it is. An API server that cannot
// list by a watch says so in the first event (its etcd is older than 3.4.25, or the feature is off); the reflector
// then lists as of old, and nothing is wrong.
func (f *follower) heard(event watch.Event, good bool) bool {
	f.metrics.heard.WithLabelValues(f.kind.name).SetToCurrentTime()
	if event.Type != watch.Error {
		f.note(nil)
		return true
	}
	if good {
		f.note(apierrors.FromObject(event.Object))
	}
	return good
}

// List and Watch are for the reflector, which does not use them.
func (f *follower) List(metav1.ListOptions) (runtime.Object, error) {
	return nil, errors.New("kubernetes: list without a context")
}

func (f *follower) Watch(metav1.ListOptions) (watch.Interface, error) {
	return nil, errors.New("kubernetes: watch without a context")
}

// Transformer makes the reflector keep entries while a list streams in, and not the objects.
func (f *follower) Transformer() cache.TransformFunc { return read }

// Add, Update, Delete, Replace and Resync are for the reflector.
func (f *follower) Add(object any) error { return f.each(object, f.engine.set) }

func (f *follower) Update(object any) error { return f.each(object, f.engine.set) }

func (f *follower) Delete(object any) error { return f.each(object, f.engine.delete) }

func (f *follower) Resync() error { return nil }

func (f *follower) each(object any, do func(convert.Record)) error {
	e, err := read(object)
	if err != nil {
		return fmt.Errorf("%s: %w", f.kind.name, err)
	}
	f.metrics.events.WithLabelValues(f.kind.name).Inc()
	do(e.(entry).Record)
	return nil
}

// Replace takes a list that is complete.
func (f *follower) Replace(objects []any, _ string) error {
	records := make([]convert.Record, 0, len(objects))
	for _, object := range objects {
		e, err := read(object)
		if err != nil {
			return fmt.Errorf("%s: %w", f.kind.name, err)
		}
		records = append(records, e.(entry).Record)
	}
	f.metrics.events.WithLabelValues(f.kind.name).Add(float64(len(records)))
	f.metrics.heard.WithLabelValues(f.kind.name).SetToCurrentTime()
	f.engine.replace(f.kind.name, f.kind.record, records)
	return nil
}
