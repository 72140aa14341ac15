package watch

import "sync"

// Value is the latest T. The zero Value holds the zero T and is ready to use; it must not be copied.
type Value[T any] struct {
	mu     sync.Mutex
	latest T
	next   chan struct{} // guarded by mu; closed when latest is superseded; nil until somebody asks
}

// New returns a Value that holds v.
func New[T any](v T) *Value[T] { return &Value[T]{latest: v} }

// Get returns the latest value and a channel that is closed once it is no longer the latest.
func (v *Value[T]) Get() (T, <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.next == nil {
		v.next = make(chan struct{})
	}
	return v.latest, v.next
}

// Latest returns the latest value.
func (v *Value[T]) Latest() T {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.latest
}

// Set supersedes the latest value with t and wakes everyone who waits. It never blocks.
func (v *Value[T]) Set(t T) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.latest = t
	if v.next != nil {
		close(v.next)
		v.next = nil
	}
}
