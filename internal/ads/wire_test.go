package ads

import (
	"strings"
	"testing"
)

// Envoy's reason stands after the resource that it refuses.
func TestClipKeepsTheReason(t *testing.T) {
	got := clip("RouteConfiguration " + strings.Repeat("\u00fc", maxDetail) + ": value length must be at least 1")
	if len(got) > maxDetail || !strings.HasPrefix(got, "RouteConfiguration ") || !strings.HasSuffix(got, "must be at least 1") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	if got := clip("short"); got != "short" {
		t.Errorf("%q", got)
	}
}
