package inspect

import (
	"strings"
	"testing"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

func TestWhyALevelGetsWhatItGets(t *testing.T) {
	level := func(share float64, healths ...pb.Health) *pb.ExplainedLevel {
		l := &pb.ExplainedLevel{Share: share}
		for _, h := range healths {
			l.Endpoints = append(l.Endpoints, &pb.ExplainedEndpoint{Health: h})
		}
		return l
	}
	for _, c := range []struct {
		level *pb.ExplainedLevel
		want  string
	}{
		{level(1, pb.Health_HEALTH_HEALTHY), "gets 100.0% of the requests"},
		{level(0, pb.Health_HEALTH_UNHEALTHY, pb.Health_HEALTH_HEALTHY), "stands by"},
		{level(0, pb.Health_HEALTH_UNHEALTHY, pb.Health_HEALTH_DRAINING), "gets nothing: none of its endpoints is healthy"},
		{level(0.5, pb.Health_HEALTH_UNHEALTHY), "gets 50.0% of the requests"}, // panic
	} {
		if got := share(c.level); !strings.HasPrefix(got, c.want) {
			t.Errorf("%v: %q, want %q", c.level, got, c.want)
		}
	}
}
