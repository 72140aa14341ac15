package adsserver

import (
	"sync"
	"time"

	"google.golang.org/grpc/status"
)

const (
	// largeBacklog is how many names make a delivery large.
	largeBacklog = 128
	// placePatience is how long a stream waits for a place before it does without.
	placePatience = 10 * time.Second
	// placeTerm is how long a stream has a place at most: a slow client must not hold up others.
	placeTerm = 2 * time.Second
)

// admit waits for a place if there is much to send. The caller holds pushing.
func (st *stream[S]) admit() error {
	st.mu.Lock()
	backlog := st.session.Backlog()
	st.mu.Unlock()
	if backlog < largeBacklog || st.place != nil {
		return nil
	}
	patience := time.NewTimer(placePatience)
	defer patience.Stop()
	select {
	case st.server.places <- struct{}{}:
		st.place = newPlace(st.server.places)
	case <-patience.C:
	case <-st.wire.ctx.Done():
		return status.FromContextError(st.wire.ctx.Err()).Err()
	}
	return nil
}

// place is one of a limited number.
type place struct {
	once sync.Once
	of   <-chan struct{}
	term *time.Timer
}

func newPlace(of <-chan struct{}) *place {
	p := &place{of: of}
	p.term = time.AfterFunc(placeTerm, p.free)
	return p
}

func (p *place) free() { p.once.Do(func() { <-p.of }) }

// leave ends what the stream holds, once nobody asks any more.
func (st *stream[S]) leave() {
	st.pushing.Lock()
	defer st.pushing.Unlock()
	st.giveUpPlace()
}

// giveUpPlace gives the place, if there is one, to another stream. The caller holds pushing.
func (st *stream[S]) giveUpPlace() {
	if st.place != nil {
		st.place.term.Stop()
		st.place.free()
		st.place = nil
	}
}

// allowance is a token bucket for requests.
type allowance struct {
	perSecond, burst, tokens float64
	at                       time.Time
}

func newAllowance(perSecond int, now time.Time) allowance {
	burst := 2 * float64(perSecond)
	return allowance{perSecond: float64(perSecond), burst: burst, tokens: burst, at: now}
}

// take spends one token, which may be owed.
func (a *allowance) take(now time.Time) {
	a.tokens = min(a.burst, a.tokens+a.perSecond*now.Sub(a.at).Seconds()) - 1
	a.at = now
}

// wait is how long until a token is there.
func (a *allowance) wait(now time.Time) time.Duration {
	missing := 1 - a.tokens - a.perSecond*now.Sub(a.at).Seconds()
	return time.Duration(max(0, missing/a.perSecond) * float64(time.Second))
}
