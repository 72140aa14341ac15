package up

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// script is a plan whose processes are shell scripts.
func script(t *testing.T, text string) *Plan {
	t.Helper()
	dir := t.TempDir()
	p := &Plan{Options: Options{Dir: dir}, Processes: []Process{{Name: "one", Identity: "one", Args: []string{"-c", text}}}}
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/bin/sh", filepath.Join(dir, "bin", "one")); err != nil {
		t.Fatal(err)
	}
	return p
}

func state(s *Supervisor) State { return s.Statuses()[0].State }

func TestSupervisorTellsAStopFromADeath(t *testing.T) {
	s := NewSupervisor(script(t, "trap 'exit 0' TERM; while :; do sleep 0.01; done"))
	defer s.Close()
	for _, end := range []func(string) error{s.Stop, s.Kill} {
		if err := s.Start("one"); err != nil {
			t.Fatal(err)
		}
		if got := state(s); got != Running {
			t.Fatalf("state %s after start", got)
		}
		if err := end("one"); err != nil {
			t.Fatal(err)
		}
		if got := state(s); got != Stopped {
			t.Errorf("state %s after an end that was asked for", got)
		}
	}
	if err := s.Start("two"); err == nil || !strings.Contains(err.Error(), `no process "two"`) {
		t.Errorf("starting what does not exist: %v", err)
	}
}

func TestSupervisorReportsAFailure(t *testing.T) {
	p := script(t, "echo the reason; exit 3")
	p.Processes[0].Ready = "http://127.0.0.1:1/ready"
	s := NewSupervisor(p)
	defer s.Close()
	if err := s.Start("one"); err != nil {
		t.Fatal(err)
	}
	err := s.Await(t.Context(), "one")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("%v does not tell exit code and last words", err)
	}
	for deadline := time.Now().Add(time.Second); state(s) != Failed; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("state %s", state(s))
		}
	}
}

// A start may be asked for while the mesh ends.
func TestNothingStartsOnceTheMeshEnds(t *testing.T) {
	s := NewSupervisor(script(t, "while :; do sleep 0.01; done"))
	s.Close()
	if err := s.Start("one"); !errors.Is(err, errClosed) {
		t.Errorf("got %v", err)
	}
	if got := state(s); got != Waiting {
		t.Errorf("state %s", got)
	}
}

// A process that is frozen does not see SIGTERM; stopping it must not take until it is killed.
func TestStopReachesAPausedProcess(t *testing.T) {
	s := NewSupervisor(script(t, "trap 'exit 0' TERM; while :; do sleep 0.01; done"))
	defer s.Close()
	if err := s.Start("one"); err != nil {
		t.Fatal(err)
	}
	if err := s.Pause("one"); err != nil {
		t.Fatal(err)
	}
	if got := state(s); got != Paused {
		t.Errorf("state %s after a pause", got)
	}
	if err := s.Start("one"); err == nil || !strings.Contains(err.Error(), "resume") {
		t.Errorf("starting what is paused: %v", err)
	}
	if err := s.Resume("one"); err != nil || state(s) != Running {
		t.Errorf("resume: %v, state %s", err, state(s))
	}
	if err := s.Pause("one"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := s.Stop("one"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > stopTimeout/2 {
		t.Errorf("it took %v", took)
	}
	if got := s.Statuses()[0]; got.State != Stopped || got.Exit == "signal: killed" {
		t.Errorf("%s, %s", got.State, got.Exit)
	}
	if err := s.Pause("one"); err == nil {
		t.Error("what does not run was paused")
	}
}
