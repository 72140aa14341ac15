package clusteragent

import (
	"strings"
	"testing"
	"time"
)

func TestFolderBelongsToOneAgentOfOneCluster(t *testing.T) {
	plane := newController(t, east())
	f := newFixture(t, plane)
	f.start()
	f.ready()
	run := func(token string) error {
		return Run(t.Context(), Config{DataDir: f.dir, JoinToken: token, Listener: listen(t), Source: f.ca.Source("/periplus/agent", time.Hour)})
	}
	if err := run(f.token); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("second agent: %v", err)
	}
	f.stop()
	other := *plane.cluster
	other.ID = "north"
	plane.cluster, plane.secret = &other, strings.Repeat("A", 43)
	if err := run(plane.token()); err == nil || !strings.Contains(err.Error(), `belongs to cluster "east"`) {
		t.Errorf("another cluster's token: %v", err)
	}
}
