package demo

import (
	"math"
	"net"
	"strings"
	"testing"
)

// A rate that no ticker can have is refused, not a panic.
func TestTrafficRefusesARate(t *testing.T) {
	for _, rate := range []float64{-1, math.NaN(), math.Inf(1), 1e12} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		err = RunTraffic(t.Context(), TrafficConfig{PerSecond: rate, Listener: listener, Visitors: []Visitor{{}}})
		if err == nil || !strings.Contains(err.Error(), "requests per second") {
			t.Errorf("%v: %v", rate, err)
		}
	}
}
