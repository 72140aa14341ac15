package splice

import (
	"cmp"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// liftAfter is after how many bytes in one direction a pair goes to a loop. That costs as much as some 100 KB do.
const liftAfter = 4 << 20

// errLifted ends a direction that a loop goes on with; nobody outside sees it.
var errLifted = errors.New("a loop goes on")

// lift stops both directions so that a loop can take the pair. False: there is none.
func (p *pair) lift() bool {
	to := p.pipes.loops.get()
	if to == nil {
		return false
	}
	p.to.CompareAndSwap(nil, to)
	past := time.Unix(1, 0)
	_ = p.a.SetDeadline(past)
	_ = p.b.SetDeadline(past)
	return true
}

// unlessLifted tells the end of a direction that lift has stopped.
func (p *pair) unlessLifted(err error) error {
	if p.to.Load() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		return errLifted
	}
	return err
}

// lifted lets the loop have the pair, with descriptors that Go's poller does not know, and returns when it has ended.
func (p *pair) lifted() {
	var fds [2]int
	for i, conn := range []net.Conn{p.a, p.b} {
		fd, err := duplicate(conn)
		if err != nil {
			for _, fd := range fds[:i] {
				_ = unix.Close(fd)
			}
			p.end(outcome{Reset, err})
			return
		}
		fds[i] = fd
		if socket, ok := conn.(*Socket); ok {
			_ = socket.KeepAlive() // nobody can ask for it later
		}
	}
	_, _ = p.a.Close(), p.b.Close()
	in := p.to.Load().add(p, fds)
	p.in.Store(in)
	if ended := p.ended.Load(); ended != nil { // before the loop had it
		in.close(ended.reason == Reset)
	} else {
		in.start()
	}
	<-in.done
}

func duplicate(conn net.Conn) (fd int, err error) {
	from, _ := inKernel(conn)
	raw, err := from.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, cmp.Or(failed, os.NewSyscallError("fcntl", err))
}
