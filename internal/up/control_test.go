package up

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// served runs a control socket until down is called or the test ends.
func served(t *testing.T, p *Plan) *Control {
	t.Helper()
	ctx, down := context.WithCancel(t.Context())
	r := &runner{plan: p, supervisor: NewSupervisor(p)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.serveControl(ctx, down); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		down()
		<-ended
		r.supervisor.Close()
	})
	c, err := NewControl(p.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err = c.Report(ctx); err == nil {
			return c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// The end of the mesh ends the connection that asked for it, too, but not before it has the answer.
func TestDownIsAnswered(t *testing.T) {
	for range 50 {
		if err := served(t, script(t, "")).Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestControlSaysWhatIsWrong(t *testing.T) {
	p := script(t, "")
	c := served(t, p)
	for _, name := range []string{"tow", "a/b", "../report", "%2F"} {
		if err := c.Act(t.Context(), "kill", name); err == nil || !strings.Contains(err.Error(), `no process "`+name+`"`) || errors.Is(err, ErrNoAnswer) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := c.Act(t.Context(), "kill", "on"); err == nil || !strings.Contains(err.Error(), "there are one") {
		t.Errorf("a part of a name: %v", err)
	}
	nobody, err := NewControl(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nobody.Report(t.Context()); err == nil || !strings.Contains(err.Error(), "no mesh runs in") || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("nobody there: %v", err)
	}
}

// A mesh that does not answer is not a mesh that does not run.
func TestAFrozenMeshIsNotAnAbsentOne(t *testing.T) {
	dir, err := os.MkdirTemp("", "up") // a short path: it has a socket in it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	listener, err := net.Listen("unix", socketPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	c, err := NewControl(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Report(ctx); err == nil || strings.Contains(err.Error(), "no mesh runs") || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("got %v", err)
	}
}
