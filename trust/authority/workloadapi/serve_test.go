package workloadapi

import (
	"testing"
	"testing/synctest"
	"time"
)

// A laptop that was closed for an hour has expired SVIDs and timers that have counted none of it: renewal goes by the
// clock, and the clock is looked at.
func TestRenewalGoesByTheClock(t *testing.T) {
	now := time.Now()
	at := renewal(now, now.Add(time.Hour))
	if at != at.Round(0) {
		t.Error("the time to renew counts what passes here")
	}
	if d := at.Sub(now.Round(0)); d < 20*time.Minute || d > 25*time.Minute {
		t.Errorf("renewed after %v", d)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := wait(t.Context(), nil, began.Add(time.Hour)); err != nil || time.Since(began) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
