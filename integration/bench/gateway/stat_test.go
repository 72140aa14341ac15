package main

import (
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const stat = "4242 (a (b) c) S 1 4242 4242 0 -1 4194304 100 0 0 0 250 75 0 0 20 0 1 0 100 1000 100"
	if got := parseStat(stat); got != 3250*time.Millisecond {
		t.Errorf("got %v, want 3.25 s", got)
	}
}
