package freeport

import (
	"net"
	"testing"
)

// What is told can be bound, and is no port that the kernel would give to a connection.
func TestLoopback(t *testing.T) {
	for range 20 {
		at := Loopback()
		l, err := net.Listen("tcp", at.String())
		if err != nil || at.Port() < first || at.Port() > last {
			t.Fatal(at, err)
		}
		defer l.Close() // told once
	}
}
