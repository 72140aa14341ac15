package realdeps

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Process is a program under test's control. It is killed when the test ends.
type Process struct {
	Name string
	t    testing.TB
	path string
	args []string
	env  []string
	log  string
	run  *exec.Cmd
	done chan struct{} // closed when run ended
}

// Run starts a program with env beside the test's environment. Its output goes to a file that is shown when the test
// failed.
func Run(t testing.TB, name, path string, env []string, args ...string) *Process {
	t.Helper()
	log, err := os.CreateTemp("", "log-"+filepath.Base(name)+"-")
	if err != nil {
		t.Fatal(err)
	}
	log.Close()
	p := &Process{Name: name, t: t, path: path, args: args, env: env, log: log.Name()}
	p.Start()
	t.Cleanup(p.cleanup)
	return p
}

// Start runs the program again with the same arguments; its log goes on.
func (p *Process) Start() {
	p.t.Helper()
	if p.Running() {
		p.t.Fatalf("%s runs already", p.Name)
	}
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	run := exec.Command(p.path, p.args...)
	run.Env = append(os.Environ(), p.env...)
	run.Stdout, run.Stderr = log, log
	// A test that is killed takes its processes along.
	run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := run.Start(); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		run.Wait()
	}()
	p.run, p.done = run, done
}

// Running tells whether it runs.
func (p *Process) Running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Done is closed when the run that began last ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid is the process's number.
func (p *Process) Pid() int { return p.run.Process.Pid }

// Signal sends one.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.run.Process.Signal(s); err != nil {
		p.t.Fatalf("%s: %v", p.Name, err)
	}
}

// stopTime is how long a program has to end by itself.
const stopTime = 20 * time.Second

// Stop asks it to end and waits until it has.
func (p *Process) Stop() {
	p.t.Helper()
	if !p.Running() {
		return
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTime):
		p.t.Errorf("%s did not end within %s of SIGTERM", p.Name, stopTime)
		p.Kill()
	}
}

// Kill ends it at once, and waits until it has ended.
func (p *Process) Kill() {
	if !p.Running() {
		return
	}
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// Log is what it has written.
func (p *Process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// RSS is its resident memory in bytes.
func (p *Process) RSS() uint64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.Pid()))
	if err != nil {
		p.t.Fatal(err)
	}
	pages, err := strconv.ParseUint(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

func (p *Process) cleanup() {
	p.Kill()
	if p.t.Failed() {
		data := []byte(p.Log())
		if len(data) > 6000 {
			data = append([]byte("...\n"), data[len(data)-6000:]...)
		}
		p.t.Logf("==== log of %s\n%s", p.Name, bytes.TrimSpace(data))
	}
	os.Remove(p.log)
}

var lastPort atomic.Int32

// Address is a host and port of this test process alone: the host is loopback and made from the process's number, so
// neither another test nor an outgoing connection can have taken the port.
func Address() string {
	pid := os.Getpid()
	host := net.IPv4(127, byte(64+pid>>16&63), byte(pid>>8), byte(pid))
	return net.JoinHostPort(host.String(), strconv.Itoa(20000+int(lastPort.Add(1))))
}

// Await repeats try until it returns nil; the test fails after timeout with its last error, and at once when p ended.
func (p *Process) Await(timeout time.Duration, try func() error) {
	p.t.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := try()
		if err == nil {
			return
		}
		if !p.Running() {
			p.t.Fatalf("%s ended before it was ready: %v\n%s", p.Name, err, p.Log())
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s is not ready after %s: %v\n%s", p.Name, timeout, err, p.Log())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Answers is an Await function: the URL answers 200.
func Answers(client *http.Client, url string) func() error {
	return func() error {
		response, err := client.Get(url)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
		}
		return err
	}
}

// shortDir is a new folder with a short path: paths of Unix sockets have at most 107 bytes.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "rd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
