// Command dataplane measures what a request costs in the proxy, beside nginx, HAProxy, httputil.ReverseProxy and,
// if there is a binary, Envoy, in one run on one machine: one hop in plain text, and a sidecar-to-sidecar chain
// with mutual TLS.
//
//	go run ./integration/bench/dataplane [-time 2.5s] [-rate 2000] [-envoy PATH]
//
// Every proxy is one process on core 0 with one worker; clients and the upstream share core 1. CPU is user and system
// time of the proxy's process from /proc/PID/stat, divided by the requests it answered. Latency is measured at a
// fixed rate from the time at which a request was due. "waited" is how long the proxy's threads were ready and had no
// core meanwhile, per request (proc_pid_schedstat): a tail that comes with it is the scheduler's, not the proxy's.
//
// It runs in a network namespace of its own with Linux's default congestion control: BBR's pacing costs every peer and
// makes tails of its own. -host uses the machine's network as it is.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/periplus-mesh/periplus/integration/bench/isolate"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/freeport"
)

type settings struct {
	seconds time.Duration
	rate    int
	conns   int
	envoy   string
	only    string
}

func main() {
	var s settings
	role := flag.String("role", "", "internal: run as this proxy")
	dir := flag.String("dir", "", "internal: directory of the run")
	listen := flag.String("listen", "", "internal: address to listen on")
	upstream := flag.String("upstream", "", "internal: address of the upstream")
	flag.DurationVar(&s.seconds, "time", 2500*time.Millisecond, "duration of each of the two measurements of each proxy")
	flag.IntVar(&s.rate, "rate", 2000, "requests per second of the latency measurement")
	flag.IntVar(&s.conns, "connections", 16, "kept connections of the load")
	flag.StringVar(&s.envoy, "envoy", defaultEnvoy(), "path of an Envoy binary; empty leaves it out")
	flag.StringVar(&s.only, "only", "", "measure only the proxy of this name")
	host := flag.Bool("host", false, "measure in the machine's own network, with its settings")
	isolated := flag.Bool(isolate.Flag, false, "internal: runs in a network namespace of its own")
	flag.Parse()
	var err error
	switch {
	case *role != "":
		err = serveRole(*role, *dir, *listen, *upstream)
	case *isolated:
		if err = isolate.Enter(); err == nil {
			err = bench(s)
		}
	case *host:
		err = bench(s)
	default:
		err = isolate.Run(context.Background())
	}
	if err != nil {
		log.Fatal(err)
	}
}

// defaultEnvoy is the Envoy of the repository's tests, "" if there is none.
func defaultEnvoy() string {
	components, err := realdeps.Components()
	if err != nil {
		return ""
	}
	cache, err := realdeps.Cache()
	if err != nil {
		return ""
	}
	for _, c := range components {
		if path, ok := c.Find(cache); ok && c.Name == "envoy" {
			return path
		}
	}
	return ""
}

func pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	return unix.SchedSetaffinity(pid, &set)
}

// hop is a proxy under measurement: one process, or two in a chain.
type hop struct {
	name  string
	start func(b *run) (address string, err error)
}

// run is one measurement's processes.
type run struct {
	settings
	dir      string
	upstream string
	commands []*exec.Cmd
}

func bench(s settings) error {
	dir, err := os.MkdirTemp("", "dataplane")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := writeIdentities(dir); err != nil {
		return err
	}
	if err := pin(0, 1); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	upstream, err := startUpstream()
	if err != nil {
		return err
	}
	for _, group := range []struct {
		name string
		hops []hop
	}{{"plain hop", plainHops(s)}, {"mTLS chain of two", chainHops(s)}} {
		fmt.Printf("\n%-22s %10s %12s %10s %10s %10s %8s\n", group.name, "req/s", "CPU us/req", "p50 us", "p99 us", "waited us", "x ours")
		ours := 0.0
		for _, h := range group.hops {
			if s.only != "" && s.only != h.name {
				continue
			}
			result, err := measure(&run{settings: s, dir: dir, upstream: upstream}, h)
			if err != nil {
				fmt.Printf("%-22s %v\n", h.name, err)
				continue
			}
			if ours == 0 {
				ours = result.cpu
			}
			fmt.Printf("%-22s %10.0f %12.1f %10.0f %10.0f %10.0f %8.2f\n", h.name, result.rps, result.cpu, us(result.p50), us(result.p99), us(result.waited), result.cpu/ours)
		}
	}
	return nil
}

func us(d time.Duration) float64 { return float64(d) / 1e3 }

type measured struct {
	rps, cpu float64
	p50, p99 time.Duration
	waited   time.Duration // per request of the latency measurement
}

func measure(r *run, h hop) (out measured, err error) {
	defer r.stop()
	address, err := h.start(r)
	if err != nil {
		return out, err
	}
	if err := waitFor(address); err != nil {
		return out, err
	}
	if _, err := closedLoop(address, r.conns, 300*time.Millisecond); err != nil { // warm up
		return out, err
	}
	before := r.cpu()
	n, err := closedLoop(address, r.conns, r.seconds)
	if err != nil {
		return out, err
	}
	out.rps = float64(n) / r.seconds.Seconds()
	out.cpu = float64((r.cpu() - before).Microseconds()) / float64(n)
	waited := r.waited()
	out.p50, out.p99, err = fixedRate(address, r.conns, r.rate, r.seconds)
	out.waited = (r.waited() - waited) / time.Duration(max(1, int(float64(r.rate)*r.seconds.Seconds())))
	return out, err
}

// command starts a process on core 0.
func (r *run) command(name string, args ...string) error {
	c := exec.Command(name, args...)
	c.Stderr = os.Stderr
	if err := pin(0, 0); err != nil { // inherited
		return err
	}
	err := c.Start()
	if back := pin(0, 1); err == nil {
		err = back
	}
	if err == nil {
		r.commands = append(r.commands, c)
	}
	return err
}

// own starts this program in a role.
func (r *run) own(role, upstream string) (string, error) {
	listen := freeport.Loopback().String()
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return listen, r.command(self, "-role", role, "-dir", r.dir, "-listen", listen, "-upstream", upstream)
}

func (r *run) stop() {
	for _, c := range r.commands {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
}

func waitFor(address string) error {
	for range 100 {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("nobody listens on %s", address)
}

func (r *run) file(name, content string) (string, error) {
	path := filepath.Join(r.dir, name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}
