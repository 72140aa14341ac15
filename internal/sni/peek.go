package sni

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// MaxHello bounds what Peek reads, in bytes, record headers included.
const MaxHello = 16 << 10

// initialBuffer holds what clients send today, post-quantum key shares included, in one piece.
const initialBuffer = 2 << 10

// The ways in which a connection has no server name.
var (
	ErrNotTLS       = errors.New("not TLS")
	ErrTooLong      = errors.New("client hello is longer than 16 KiB")
	ErrTimeout      = errors.New("client hello did not arrive in time")
	ErrMalformed    = errors.New("client hello is malformed")
	ErrNoServerName = errors.New("client hello names no server")
)

// Hello is what a ClientHello says in the clear.
type Hello struct {
	// ServerName as sent: not lowered, no trailing dot, not an empty string.
	ServerName string
	// Encrypted tells that the hello carries encrypted_client_hello (RFC 9849), be it a real one or GREASE: the
	// server may then see another name.
	Encrypted bool
	alpn      []byte
}

// Protocols is the ALPN list in the client's order; empty if it sent none.
func (h Hello) Protocols() []string {
	var protocols []string
	for list := cursor(h.alpn); len(list) > 0; {
		name, _ := list.vector8() // checked by parse
		protocols = append(protocols, string(name))
	}
	return protocols
}

// Peek reads until the ClientHello is complete and returns it with every byte that it read, which may be more than
// the hello. The bytes are valid beside an error too; with ErrNoServerName the rest of the Hello is valid as well.
// Errors are the package's, or wrap r's, io.ErrUnexpectedEOF for an early end.
func Peek(r io.Reader) (Hello, []byte, error) {
	buf := make([]byte, 0, initialBuffer)
	var s scanner
	for {
		if len(buf) == cap(buf) {
			buf = append(make([]byte, 0, min(2*cap(buf), MaxHello)), buf...)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		message, scanErr := s.scan(buf)
		switch {
		case scanErr != nil:
			return Hello{}, buf, scanErr
		case message != nil:
			hello, err := parse(message)
			return hello, buf, err
		case err != nil:
			return Hello{}, buf, readError(err)
		case len(buf) == MaxHello:
			return Hello{}, buf, ErrTooLong
		}
	}
}

func readError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return ErrTimeout
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("client hello: %w", err)
}

// Replay is a connection that reads the peeked bytes first. It hides conn's type: to copy it with splice(2), write
// the peeked bytes and copy conn.
func Replay(conn net.Conn, peeked []byte) net.Conn { return &replay{Conn: conn, peeked: peeked} }

type replay struct {
	net.Conn
	peeked []byte
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.peeked) == 0 {
		return r.Conn.Read(b)
	}
	n := copy(b, r.peeked)
	if r.peeked = r.peeked[n:]; len(r.peeked) == 0 {
		r.peeked = nil
	}
	return n, nil
}

// CloseWrite passes a half-close on, if the connection has one.
func (r *replay) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return r.Close()
}
