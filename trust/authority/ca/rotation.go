package ca

import (
	"context"
	"time"
)

// The shares of a root's life, as 1/part that is left, at which the next is published and at which it signs.
// A third of the life lies between: time for every cluster to learn it (SPIFFE Trust Domain and Bundle, 4.1.2,
// wants three to five refresh hints).
const (
	prepareAt  = 2
	activateAt = 6
)

// lookAgain bounds the wait for the next step: a timer does not notice that the clock was set, nor that the machine
// slept.
const lookAgain = time.Minute

// Run renews roots on schedule until ctx is done; then it returns nil.
func (a *Authority) Run(ctx context.Context) error {
	for {
		s, next := a.latest.Get()
		timer := time.NewTimer(min(time.Until(s.nextStep()), lookAgain))
		select {
		case <-timer.C:
			if err := a.step(); err != nil {
				a.config.Log.Error("root rotation: trying again", "err", err)
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
func (a *Authority) step() error {
	now := time.Now()
	if s := a.Latest(); s.In(Active) != nil && now.Before(s.nextStep()) {
		return nil
	}
	fresh, err := a.newRoot(now)
	if err != nil {
		return err
	}
	return a.Update(func(s *State) error {
		s.advance(now, fresh)
		a.config.Log.Info("roots rotated", "roots", len(s.roots), "active", s.In(Active).ID(), "expires", s.In(Active).NotAfter())
		return nil
	})
}

// nextStep is when advance has something to do.
func (s *State) nextStep() time.Time {
	signing := s.In(Active)
	if signing == nil {
		return time.Time{}
	}
	next := signing.left(prepareAt)
	if successor := s.In(Prepared); successor != nil {
		next = handover(signing, successor)
	}
	for _, r := range s.roots {
		if end := r.certificate.NotAfter; r.phase == Old && end.Before(next) {
			next = end
		}
	}
	return next
}

// advance does all that is due at now; fresh is used if a new root is needed.
func (s *State) advance(now time.Time, fresh *Root) {
	expired := func(r *Root) bool { return !now.Before(r.certificate.NotAfter) }
	s.remove(expired)
	signing := s.In(Active)
	if s.In(Prepared) == nil && (signing == nil || !now.Before(signing.left(prepareAt))) {
		s.Prepare(fresh)
	}
	// Without an active root (first start, or a stop longer than a root's life) the prepared one must sign at once.
	if next := s.In(Prepared); next != nil && (signing == nil || !now.Before(handover(signing, next))) {
		_ = s.Activate() // cannot fail: there is a prepared one
	}
}

// handover is when next signs instead of signing: on schedule, but if it was published late, not before it was
// known for half of the time that is left.
func handover(signing, next *Root) time.Time {
	planned, published := signing.left(activateAt), next.certificate.NotBefore
	if half := published.Add(signing.certificate.NotAfter.Sub(published) / 2); half.After(planned) {
		return half
	}
	return planned
}
