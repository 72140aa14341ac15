package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/internal/sni"
)

// serverName is the one service of the benchmark.
const serverName = "outbound_.80_._.catalog.shop.svc.cluster.local"

// What a client asks the backend for, after its hello.
const (
	askBulk   = 'b' // bytes until the client closes
	askAnswer = 'a' // one byte, then the end
)

// capture is a connection that only records.
type capture struct {
	net.Conn
	bytes.Buffer
}

func (c *capture) Write(b []byte) (int, error)      { return c.Buffer.Write(b) }
func (c *capture) Read([]byte) (int, error)         { return 0, io.EOF }
func (c *capture) Close() error                     { return nil }
func (c *capture) SetWriteDeadline(time.Time) error { return nil }

// clientHello is what crypto/tls sends today, post-quantum key share included.
func clientHello() []byte {
	var c capture
	_ = tls.Client(&c, &tls.Config{ServerName: serverName, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13}).Handshake()
	return c.Bytes()
}

// runBackend reads a hello and does what is asked.
func runBackend(ctx context.Context, listen, _ string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	chunk := make([]byte, 256<<10)
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		go serve(conn, chunk)
	}
}

func serve(conn net.Conn, chunk []byte) {
	defer conn.Close()
	_, peeked, err := sni.Peek(conn)
	if err != nil {
		return
	}
	ask := peeked[len(peeked)-1:]
	if ask[0] == askAnswer {
		_, _ = conn.Write(ask)
		return
	}
	for {
		if _, err := conn.Write(chunk); err != nil {
			return
		}
	}
}

// ask opens a connection and sends hello and question in one piece.
func ask(address string, question byte) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write(append(clientHelloOnce(), question)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

var clientHelloOnce = sync.OnceValue(func() []byte { hello := clientHello(); return hello[:len(hello):len(hello)] })

func answer(address string) error {
	conn, err := ask(address, askAnswer)
	if err != nil {
		return err
	}
	defer conn.Close()
	var got [2]byte
	if n, err := io.ReadFull(conn, got[:]); n != 1 || !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("answer: %d bytes, %w", n, err)
	}
	return nil
}

func awaitAnswer(address string) (err error) {
	for range 200 {
		if err = answer(address); err == nil {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return err
}

// bulk downloads over some streams and returns how many bytes came.
func bulk(address string, streams int, d time.Duration) (int64, error) {
	var total atomic.Int64
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	end := time.Now().Add(d)
	for range streams {
		conn, err := ask(address, askBulk)
		if err != nil {
			return 0, err
		}
		group.Go(func() {
			defer conn.Close()
			buf := make([]byte, 1<<20)
			for time.Now().Before(end) {
				n, err := conn.Read(buf)
				total.Add(int64(n))
				if err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return total.Load(), nil
}

// churn makes short connections, some at a time, and returns how many.
func churn(address string, concurrency int, d time.Duration) (int64, error) {
	var total atomic.Int64
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	end := time.Now().Add(d)
	for range concurrency {
		group.Go(func() {
			for time.Now().Before(end) {
				if err := answer(address); err != nil {
					failed.Store(&err)
					return
				}
				total.Add(1)
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return total.Load(), nil
}
