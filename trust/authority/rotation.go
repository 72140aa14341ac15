package authority

import (
	"context"
	"log/slog"
	"time"
)

// The shares of a root's life, as 1/part that is left, at which the next is published and at which it signs.
// A third of the life lies between: time for every cluster to learn it (SPIFFE Trust Domain and Bundle, 4.1.2,
// wants three to five refresh hints).
const (
	prepareAt  = 2
	activateAt = 6
)

// rotation renews roots on schedule.
type rotation struct {
	keeper *keeper
	life   time.Duration // of a root
	log    *slog.Logger
}

func (r rotation) run(ctx context.Context) error {
	for {
		s, next := r.keeper.latest.Get()
		timer := time.NewTimer(time.Until(s.nextStep()))
		select {
		case <-timer.C:
			if err := r.step(); err != nil {
				r.log.Error("root rotation: trying again", "err", err)
				if !pause(ctx, time.Second) {
					return nil
				}
			}
		case <-next: // somebody rotated by hand
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// step does what is due now, if anything.
func (r rotation) step() error {
	now := time.Now()
	if s := r.keeper.latest.Latest(); s.in(active) != nil && now.Before(s.nextStep()) {
		return nil
	}
	fresh, err := newRoot(r.keeper.domain, now, r.life)
	if err != nil {
		return err
	}
	return r.keeper.update(func(s *state) error {
		s.advance(now, fresh)
		r.log.Info("roots rotated", "roots", len(s.roots), "active", s.in(active).id(), "expires", s.in(active).certificate.NotAfter)
		return nil
	})
}

// nextStep is when advance has something to do.
func (s *state) nextStep() time.Time {
	signing := s.in(active)
	if signing == nil {
		return time.Time{}
	}
	next := signing.left(prepareAt)
	if successor := s.in(prepared); successor != nil {
		next = handover(signing, successor)
	}
	for _, r := range s.roots {
		if end := r.certificate.NotAfter; r.phase == old && end.Before(next) {
			next = end
		}
	}
	return next
}

// advance does all that is due at now; fresh is used if a new root is needed.
func (s *state) advance(now time.Time, fresh *root) {
	expired := func(r *root) bool { return !now.Before(r.certificate.NotAfter) }
	s.remove(expired)
	signing := s.in(active)
	if s.in(prepared) == nil && (signing == nil || !now.Before(signing.left(prepareAt))) {
		s.prepare(fresh)
	}
	// Without an active root (first start, or a stop longer than a root's life) the prepared one must sign at once.
	if next := s.in(prepared); next != nil && (signing == nil || !now.Before(handover(signing, next))) {
		_ = s.activate() // cannot fail: there is a prepared one
	}
}

// handover is when next signs instead of signing: on schedule, but if it was published late, not before it was
// known for half of the time that is left.
func handover(signing, next *root) time.Time {
	planned, published := signing.left(activateAt), next.certificate.NotBefore
	if half := published.Add(signing.certificate.NotAfter.Sub(published) / 2); half.After(planned) {
		return half
	}
	return planned
}
