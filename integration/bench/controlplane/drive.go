package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"

	"github.com/periplus-mesh/periplus/trust"
)

// replica is a server process on a core of its own.
type replica struct {
	process *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	address string
}

func start(o options) (*replica, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(os.Args[1:len(os.Args):len(os.Args)], "-serve", "127.0.0.1:0")
	r := &replica{process: exec.Command(self, args...)}
	if taskset, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		r.process = exec.Command(taskset, append([]string{"-c", "0", self}, args...)...)
	}
	r.process.Env = append(os.Environ(), "GOMAXPROCS=1")
	r.process.Stderr = os.Stderr
	if r.in, err = r.process.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := r.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReaderSize(out, 1<<20)
	if err := r.process.Start(); err != nil {
		return nil, err
	}
	r.address, err = r.read()
	return r, err
}

func (r *replica) read() (string, error) {
	line, err := r.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

func (r *replica) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(r.in, command); err != nil {
		return "", err
	}
	return r.read()
}

func (r *replica) usage() (cpu time.Duration, rssMiB float64, err error) {
	answer, err := r.ask("usage")
	if err != nil {
		return 0, 0, err
	}
	var seconds, kib float64
	_, err = fmt.Sscan(answer, &seconds, &kib)
	return time.Duration(seconds * float64(time.Second)), kib / 1024, err
}

// idle waits until the server has nothing to do any more.
func (r *replica) idle(pause time.Duration) (cpu time.Duration, rssMiB float64, err error) {
	for last := -time.Hour; ; last = cpu {
		if cpu, rssMiB, err = r.usage(); err != nil || cpu-last < pause/50 {
			return cpu, rssMiB, err
		}
		time.Sleep(pause)
	}
}

func (r *replica) stop() {
	_ = r.in.Close()
	_ = r.process.Wait()
}

// drive is the load client.
func drive(o options) error {
	runtime.GOMAXPROCS(1)
	if taskset, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		if err := exec.Command(taskset, "-a", "-p", "-c", "1", strconv.Itoa(os.Getpid())).Run(); err != nil {
			return err
		}
	}
	if err := share(); err != nil {
		return err
	}
	server, err := start(o)
	if err != nil {
		return err
	}
	defer server.stop()
	dial, err := dialerOf(o)
	if err != nil {
		return err
	}
	fmt.Printf("%d proxies, %d services x %d endpoints, tls %v, %s, %d cores\n",
		o.proxies, o.services, o.endpoints, o.tls, runtime.Version(), runtime.NumCPU())
	f := newFleet(o)
	defer func() { f.disconnect() }()
	for _, phase := range []struct {
		name string
		run  func(options, *replica, *fleet) error
	}{
		{"warm", func(o options, r *replica, f *fleet) error { return warm(o, r, f, dial) }}, {"lone", lone}, {"changes", changes},
	} {
		if err := server.profiled(o, phase.name, func() error { return phase.run(o, server, f) }); err != nil {
			return fmt.Errorf("%s: %w", phase.name, err)
		}
	}
	_, rss, err := server.usage()
	if err != nil {
		return err
	}
	fmt.Printf("after                 rss %.0f MiB, sent again %d\n", rss, f.total(func(p *proxy) int { return p.resent }))
	if o.floor { // it cannot resume
		return nil
	}
	return move(o, f, dial)
}

func dialerOf(o options) (dialer, error) {
	plain := new(net.Dialer)
	if !o.tls {
		return func(ctx context.Context, address string) (net.Conn, error) {
			return plain.DialContext(ctx, "tcp", address)
		}, nil
	}
	source, err := identities()
	if err != nil {
		return nil, err
	}
	config := trust.ClientConfig(source, trust.AuthorizeAny)
	config.NextProtos = []string{http2.NextProtoTLS}
	secure := &tls.Dialer{NetDialer: plain, Config: config}
	return func(ctx context.Context, address string) (net.Conn, error) {
		return secure.DialContext(ctx, "tcp", address)
	}, nil
}

// profiled has the server and this process write CPU profiles of what run does, if that is wanted.
func (r *replica) profiled(o options, phase string, run func() error) error {
	if o.profile == "" {
		return run()
	}
	if _, err := r.ask("profile " + o.profile + "." + phase); err != nil {
		return err
	}
	own, err := os.Create(o.profile + "." + phase + ".proxies")
	if err != nil {
		return err
	}
	defer own.Close()
	if err := pprof.StartCPUProfile(own); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	if err := run(); err != nil {
		return err
	}
	_, err = r.ask("profiled")
	return err
}

// warm connects all proxies.
func warm(o options, server *replica, f *fleet, dial dialer) error {
	begin := time.Now()
	f.connect(server.address, dial)
	if err := f.warm(5 * time.Minute); err != nil {
		return err
	}
	fmt.Printf("all proxies warm      %.2f s\n", time.Since(begin).Seconds())
	time.Sleep(o.settle)
	cpu, rss, err := server.usage()
	if err != nil {
		return err
	}
	fmt.Printf("warm                  rss %.0f MiB, cpu %.2f s\n", rss, cpu.Seconds())
	return nil
}

// lone has the server make one change at a time. The last proxy's receipt has two parts: the server has written to every
// connection, and the one process that all proxies share has read from every one.
func lone(o options, server *replica, f *fleet) error {
	var written, last []time.Duration
	serverBefore, clientBefore, err := usages(server)
	if err != nil {
		return err
	}
	for i := range o.lone {
		made, err := server.change(i, 1, o.settle/4)
		if err != nil {
			return err
		}
		newest, err := f.all(made, 1)
		if err != nil {
			return err
		}
		answer, err := server.ask("written")
		if err != nil {
			return err
		}
		at, err := unixNanos(answer)
		if err != nil {
			return err
		}
		written, last = append(written, at.Sub(made[i])), append(last, newest[len(newest)-1])
	}
	serverAfter, clientAfter, err := usages(server)
	if err != nil {
		return err
	}
	each := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(o.lone) }
	fmt.Printf("lone change           last proxy %.1f ms (%.1f to %.1f), written by the server %.1f ms (%.1f to %.1f)\n",
		millis(last, .5), millis(last, 0), millis(last, 1), millis(written, .5), millis(written, 0), millis(written, 1))
	fmt.Printf("                      cpu with all answers: server %.1f ms, all proxies %.1f ms\n",
		each(serverAfter-serverBefore), each(clientAfter-clientBefore))
	return nil
}

// usages are the CPU time of the server and of this process.
func usages(server *replica) (theirs, own time.Duration, err error) {
	if theirs, _, err = server.usage(); err == nil {
		own, err = cpuTime()
	}
	return theirs, own, err
}

// changes has the server make many changes and matches the receipts.
func changes(o options, server *replica, f *fleet) error {
	before, _, err := server.usage()
	if err != nil {
		return err
	}
	made, err := server.change(o.lone, o.changes, 0)
	if err != nil {
		return err
	}
	after, _, err := server.idle(o.settle)
	if err != nil {
		return err
	}
	delays := f.taken(made)
	if len(delays) == 0 {
		return errors.New("no receipts")
	}
	total := o.changes * o.proxies
	fmt.Printf("changes               p50 %.1f ms, p99 %.1f ms, last %.1f ms, lost %d of %d, server cpu %.2f s\n",
		millis(delays, .5), millis(delays, .99), millis(delays, 1), total-len(delays), total, (after - before).Seconds())
	return nil
}

// change has the server make changes, and returns when it made each. It answers after a pause: its one core is busy with
// the change, and so is this one.
func (r *replica) change(first, count int, pause time.Duration) (map[int]time.Time, error) {
	answer, err := r.ask(fmt.Sprintf("change %d %d %s", first, count, pause))
	if err != nil {
		return nil, err
	}
	made := make(map[int]time.Time)
	for i, text := range strings.Fields(answer) {
		if made[first+i], err = unixNanos(text); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func unixNanos(text string) (time.Time, error) {
	nanos, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(0, nanos), err
}

// millis is a quantile, in milliseconds.
func millis(of []time.Duration, share float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[int(share*float64(len(sorted)-1))].Seconds() * 1000
}

// move takes all proxies to another replica that has the same state.
func move(o options, f *fleet, dial dialer) error {
	other, err := start(o)
	if err != nil {
		return err
	}
	defer other.stop()
	if _, err := other.ask(fmt.Sprintf("replay 0 %d", o.lone+o.changes)); err != nil { // the same state
		return err
	}
	f.disconnect()
	before := f.total(func(p *proxy) int { return p.received })
	f.connect(other.address, dial)
	for _, p := range f.proxies {
		select {
		case <-p.accepted:
		case err := <-f.failed:
			return err
		}
	}
	cpu, rss, err := other.idle(o.settle)
	if err != nil {
		return err
	}
	f.disconnect()
	fmt.Printf("moved to a replica    sent again %d, cpu %.2f s, rss %.0f MiB\n",
		f.total(func(p *proxy) int { return p.received })-before, cpu.Seconds(), rss)
	return nil
}
