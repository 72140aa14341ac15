package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// State of a process.
type State string

// The states. Killed and failed processes stay down until somebody starts them: that is what the demo is for.
const (
	Waiting State = "waiting"
	Running State = "running"
	Paused  State = "paused" // by Pause; a SIGSTOP from elsewhere is not noticed
	Stopped State = "stopped"
	Failed  State = "failed"
)

func (s State) alive() bool { return s == Running || s == Paused }

// Status is what the supervisor knows of a process.
type Status struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Cluster string    `json:"cluster,omitempty"`
	State   State     `json:"state"`
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since"`
	Log     string    `json:"log"`
	Exit    string    `json:"exit,omitempty"`
}

// stopTimeout is how long a process may take to drain before it is killed.
const stopTimeout = 15 * time.Second

// Supervisor starts and stops the processes of a plan.
type Supervisor struct {
	plan   *Plan
	mu     sync.Mutex
	procs  map[string]*proc // guarded by mu
	closed bool             // guarded by mu; nothing is started any more
	spawn  chan func()      // closed once closed is set
}

type proc struct {
	process Process
	status  Status
	wanted  bool // it should run: an exit is a failure
	cmd     *exec.Cmd
	done    chan struct{}
}

// NewSupervisor prepares to run the plan. Close must be called.
func NewSupervisor(plan *Plan) *Supervisor {
	s := &Supervisor{plan: plan, procs: map[string]*proc{}, spawn: make(chan func())}
	for _, process := range plan.Processes {
		s.procs[process.Name] = &proc{process: process, status: Status{
			Name: process.Name, Role: process.Role.String(), Cluster: process.Cluster, State: Waiting, Log: s.log(process.Name),
		}}
	}
	go s.spawner()
	return s
}

// spawner starts children on one thread that lives as long as the supervisor: the kernel signals a child's death
// wish (PR_SET_PDEATHSIG) when the thread that made it ends, not the process.
func (s *Supervisor) spawner() {
	runtime.LockOSThread()
	for start := range s.spawn {
		start()
	}
}

func (s *Supervisor) log(name string) string { return s.plan.path("logs", name+".log") }

// errClosed is what a start gets that came while the mesh ends.
var errClosed = errors.New("the mesh is ending")

// Start runs a process; it is no error if it runs already.
func (s *Supervisor) Start(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.procs[name]
	switch {
	case !ok:
		return s.unknown(name)
	case s.closed:
		return fmt.Errorf("start %s: %w", name, errClosed)
	case p.status.State == Paused:
		return fmt.Errorf("%s is paused: 'resume' lets it go on", name)
	case p.status.State == Running:
		return nil
	}
	result := make(chan error)
	s.spawn <- func() { result <- p.start(s.plan.Binary(p.process)) }
	if err := <-result; err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go s.wait(p, p.cmd, p.done)
	return nil
}

// unknown says which ones a name may have meant.
func (s *Supervisor) unknown(name string) error {
	var near []string
	for _, p := range s.plan.Processes {
		if strings.Contains(p.Name, name) {
			near = append(near, p.Name)
		}
	}
	if len(near) == 0 {
		return fmt.Errorf("no process %q: 'periplus up status' lists them", name)
	}
	return fmt.Errorf("no process %q; there are %s", name, strings.Join(near, ", "))
}

func (p *proc) start(binary string) error {
	if err := os.MkdirAll(filepath.Dir(p.status.Log), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(p.status.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(binary, p.process.Args...)
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own keeps the terminal's Ctrl-C from it: the supervisor ends children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.done, p.wanted = cmd, make(chan struct{}), true
	p.status.State, p.status.PID, p.status.Since, p.status.Exit = Running, cmd.Process.Pid, time.Now(), ""
	return nil
}

func (s *Supervisor) wait(p *proc, cmd *exec.Cmd, done chan struct{}) {
	cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	p.status.State, p.status.PID, p.status.Since = Stopped, 0, time.Now()
	if p.status.Exit = cmd.ProcessState.String(); p.wanted {
		p.status.State = Failed
	}
	close(done)
}

// Stop ends a process in good order (SIGTERM: it drains) and waits for it; after a while it is killed.
func (s *Supervisor) Stop(name string) error { return s.end(name, syscall.SIGTERM) }

// Kill ends a process at once (SIGKILL) and waits for it.
func (s *Supervisor) Kill(name string) error { return s.end(name, syscall.SIGKILL) }

// Pause freezes a process (SIGSTOP).
func (s *Supervisor) Pause(name string) error { return s.signal(name, syscall.SIGSTOP, Paused) }

// Resume lets a paused process go on (SIGCONT).
func (s *Supervisor) Resume(name string) error { return s.signal(name, syscall.SIGCONT, Running) }

func (s *Supervisor) signal(name string, signal syscall.Signal, then State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.procs[name]
	if !ok {
		return s.unknown(name)
	}
	if !p.status.State.alive() {
		return fmt.Errorf("%s does not run", name)
	}
	if err := p.cmd.Process.Signal(signal); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	p.status.State = then
	return nil
}

func (s *Supervisor) end(name string, signal syscall.Signal) error {
	s.mu.Lock()
	p, ok := s.procs[name]
	if !ok {
		defer s.mu.Unlock()
		return s.unknown(name)
	}
	if !p.status.State.alive() {
		s.mu.Unlock()
		return nil
	}
	p.wanted = false
	process, done, paused := p.cmd.Process, p.done, p.status.State == Paused
	s.mu.Unlock()
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", name, err)
	}
	if paused { // or it would see the signal when it is resumed only
		process.Signal(syscall.SIGCONT)
	}
	select {
	case <-done:
	case <-time.After(stopTimeout):
		process.Kill()
		<-done
	}
	return nil
}

// Close ends everything that runs, the last role first, and waits. Nothing can be started afterwards.
func (s *Supervisor) Close() {
	s.mu.Lock()
	s.closed = true
	close(s.spawn) // who sends holds mu, and looks at closed first
	s.mu.Unlock()
	for role := Traffic; role >= Controller; role-- {
		var all sync.WaitGroup
		for _, process := range s.plan.Processes {
			if process.Role == role {
				all.Go(func() { s.Stop(process.Name) })
			}
		}
		all.Wait()
	}
}

// Statuses in the order of the plan.
func (s *Supervisor) Statuses() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Status, 0, len(s.procs))
	for _, process := range s.plan.Processes {
		out = append(out, s.procs[process.Name].status)
	}
	return out
}

// Await blocks until the process is ready, and fails if it ends before.
func (s *Supervisor) Await(ctx context.Context, name string) error {
	s.mu.Lock()
	p := s.procs[name]
	process, cmd, done, log := p.process, p.cmd, p.done, p.status.Log
	s.mu.Unlock()
	for {
		if process.Ready == "" || answers(ctx, process.Ready) {
			return nil
		}
		select {
		case <-done:
			return fmt.Errorf("%s ended before it was ready: %s\n%s", name, cmd.ProcessState, tail(log, 12))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; see %s\n%s", name, ctx.Err(), log, tail(log, 12))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
