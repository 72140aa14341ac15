package balance

import "testing"

func TestRetryBudget(t *testing.T) {
	for _, test := range []struct {
		budget          RetryBudget
		active, retries int64
		want            bool
	}{
		{RetryBudget{}, 0, 2, true}, {RetryBudget{}, 0, 3, false},
		{RetryBudget{}, 15, 3, false}, {RetryBudget{}, 100, 19, true}, {RetryBudget{}, 100, 20, false},
		{RetryBudget{Percent: 50, MinConcurrency: 1}, 10, 4, true}, {RetryBudget{Percent: 50, MinConcurrency: 1}, 10, 5, false},
	} {
		if got := test.budget.Allows(test.active, test.retries); got != test.want {
			t.Errorf("%+v: got %v, want %v", test, got, test.want)
		}
	}
}

func TestBreaker(t *testing.T) {
	limits := DefaultLimits()
	limits.MaxRequests = 2
	s := NewSet(Spec{Limits: &limits}, nil)
	b := s.Breaker()
	if !b.Requests.Acquire() || !b.Requests.Acquire() || b.Requests.Acquire() {
		t.Error("want two of two requests and no third")
	}
	b.Requests.Release()
	if !b.Requests.Acquire() {
		t.Error("want one more after a release")
	}
	for i := range 4 {
		if got, want := b.AcquireRetry(), i < 3; got != want {
			t.Errorf("retry %d: got %v, want %v", i, got, want)
		}
	}
	NewSet(Spec{Limits: &Limits{Retry: &RetryBudget{MinConcurrency: 4}}}, s)
	if !b.AcquireRetry() || b.AcquireRetry() {
		t.Error("want four retries within the budget and no fifth")
	}
	if NewSet(Spec{Limits: &Limits{}}, s); b.Requests.Acquire() {
		t.Error("zero allows none")
	}
}
