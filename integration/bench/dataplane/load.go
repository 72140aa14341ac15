package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const request = "GET /items?id=1 HTTP/1.1\r\nHost: catalog\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"

var response = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))

// startUpstream answers every head with the same response.
func startUpstream() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answer(c)
		}
	}()
	return l.Addr().String(), nil
}

func answer(c net.Conn) {
	defer c.Close()
	buf, n := make([]byte, 16<<10), 0
	for {
		m, err := c.Read(buf[n:])
		if err != nil {
			return
		}
		if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
			n = 0
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	}
}

// client is one kept connection.
type client struct {
	c net.Conn
	b *bufio.Reader
}

func newClient(address string) (*client, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReaderSize(c, 8<<10)}, nil
}

// do sends one request and reads its response, whose length it learns from the head.
func (c *client) do() error {
	if _, err := io.WriteString(c.c, request); err != nil {
		return err
	}
	length := -1
	for first := true; ; first = false {
		line, err := c.b.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.Contains(line, []byte(" 200 ")):
			return fmt.Errorf("answered %q", line)
		case len(line) == 2 && length < 0:
			return fmt.Errorf("no content-length")
		case len(line) == 2:
			_, err := c.b.Discard(length)
			return err
		case len(line) > 16 && strings.EqualFold(string(line[:15]), "content-length:"):
			length, _ = strconv.Atoi(string(bytes.TrimSpace(line[15:])))
		}
	}
}

// closedLoop keeps every connection busy and counts responses.
func closedLoop(address string, conns int, d time.Duration) (int64, error) {
	var n atomic.Int64
	until := time.Now().Add(d)
	err := each(address, conns, func(_ int, c *client) error {
		for time.Now().Before(until) {
			if err := c.do(); err != nil {
				return err
			}
			n.Add(1)
		}
		return nil
	})
	return n.Load(), err
}

// fixedRate sends at a rate, spread over the connections, and returns latencies from the due times.
func fixedRate(address string, conns, rate int, d time.Duration) (p50, p99 time.Duration, err error) {
	all := make([][]time.Duration, conns)
	start := time.Now()
	step := time.Second * time.Duration(conns) / time.Duration(rate)
	err = each(address, conns, func(i int, c *client) error {
		due := start.Add(step * time.Duration(i) / time.Duration(conns))
		for ; due.Sub(start) < d; due = due.Add(step) {
			time.Sleep(time.Until(due))
			if err := c.do(); err != nil {
				return err
			}
			all[i] = append(all[i], time.Since(due))
		}
		return nil
	})
	joined := slices.Concat(all...)
	if err != nil || len(joined) == 0 {
		return 0, 0, err
	}
	slices.Sort(joined)
	return joined[len(joined)/2], joined[len(joined)*99/100], nil
}

func each(address string, conns int, f func(int, *client) error) error {
	var running sync.WaitGroup
	errs := make(chan error, conns)
	for i := range conns {
		c, err := newClient(address)
		if err != nil {
			return err
		}
		running.Go(func() {
			defer c.c.Close()
			if err := f(i, c); err != nil {
				errs <- err
			}
		})
	}
	running.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

// cpu is the processes' user and system time (proc_pid_stat(5), fields 14 and 15, in ticks of 10 ms).
func (r *run) cpu() (total time.Duration) {
	for _, c := range r.commands {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.Process.Pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] {
			ticks, _ := strconv.Atoi(f)
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}

// waited is how long the processes' threads have waited for a core (second field of /proc/PID/task/TID/schedstat, in ns).
func (r *run) waited() (total time.Duration) {
	for _, c := range r.commands {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", c.Process.Pid))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			if fields := strings.Fields(string(text)); len(fields) > 1 {
				ns, _ := strconv.ParseInt(fields[1], 10, 64)
				total += time.Duration(ns)
			}
		}
	}
	return total
}
