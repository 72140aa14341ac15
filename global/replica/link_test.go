package replica

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// flaky is a listener whose first Accepts fail.
type flaky struct {
	net.Listener
	fails int
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fails--; f.fails >= 0 {
		return nil, errors.New("accept: too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsEndNothing(t *testing.T) {
	p := newPlane(t, "a", "b")
	p.start("a", func(c *Config) { c.Listener = &flaky{c.Listener, 3} })
	p.start("b", nil)
	p.write("b", 1)
}

// Strangers who connect and say nothing do not keep replicas of other hosts out.
func TestSilentStrangersDoNotKeepReplicasOut(t *testing.T) {
	p := newPlane(t, "a", "b")
	p.start("a", nil)
	for range 100 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.members["a"].Address.Raft)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	b := p.start("b", func(c *Config) {
		c.Dial = (&dialer{net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}}).dial
	})
	eventually(t, "b runs", func() bool { return b.layer.Load() != nil })
	conn, err := b.layer.Load().Dial(raft.ServerAddress(p.members["a"].Address.String()), 3*time.Second)
	if err != nil {
		t.Fatalf("replica b is kept out: %v", err)
	}
	conn.Close()
}

// dialer dials TCP from its own address.
type dialer struct{ net.Dialer }

func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	return d.DialContext(ctx, "tcp", address)
}
