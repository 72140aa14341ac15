package up

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func plan(t *testing.T, o Options) *Plan {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	p, err := NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every process has a name, a binary and listening addresses of its own, however many clusters there are.
func TestPlanGivesEachItsOwn(t *testing.T) {
	for clusters := 1; clusters <= len(regions); clusters++ {
		p := plan(t, Options{Clusters: clusters})
		if want := 3 + clusters*(1+1+2+2+8) + 1; len(p.Processes) != want {
			t.Errorf("%d clusters: %d processes, want %d", clusters, len(p.Processes), want)
		}
		names, listens := map[string]bool{}, map[string]bool{}
		for _, process := range p.Processes {
			if names[process.Name] {
				t.Errorf("%s twice", process.Name)
			}
			names[process.Name] = true
		}
		for _, address := range p.listens() {
			if listens[address] || !strings.HasPrefix(address, "127.20.") {
				t.Errorf("%s twice, or outside the prefix", address)
			}
			listens[address] = true
		}
	}
}

func TestOptionsAreRefusedWithAReason(t *testing.T) {
	long := "/tmp/" + strings.Repeat("x", 100)
	for _, c := range []struct {
		options Options
		says    string
	}{
		{Options{Clusters: 10}, "--clusters 10"},
		{Options{Clusters: -1}, "--clusters -1"},
		{Options{Prefix: "10.0"}, "loopback"},
		{Options{Prefix: "127.1.2"}, "loopback"},
		{Options{Dir: long}, "shorter path"},
		{Options{Dir: "/tmp/a,b"}, "must not contain"},
	} {
		if _, err := NewPlan(c.options); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v does not say %q", c.options, err, c.says)
		}
	}
}

func TestAddressInUseIsNamed(t *testing.T) {
	p := plan(t, Options{Prefix: "127.97"})
	taken, err := net.Listen("tcp", p.listens()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := p.free(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "--prefix") {
		t.Errorf("%v does not name the address and the way out", err)
	}
}

func TestFolderInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	held, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "periplus down") {
		t.Errorf("got %v", err)
	}
	held.Close()
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

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
