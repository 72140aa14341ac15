package splice

import (
	"cmp"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is how much one call may move, in bytes: the most that an unprivileged process may ask for.
const pipeSize = 1 << 20

// Pipes keeps pipes for use by the pairs whose bytes are moving right now, and the loops of those that have moved many.
type Pipes struct {
	keep      int
	liftAfter int // bytes in one direction after which a pair goes to a loop
	loops     loops

	mu   sync.Mutex
	idle []pipe
	shut bool
}

type pipe struct{ r, w int }

// NewPipes keeps at most keep idle pipes.
func NewPipes(keep int) *Pipes { return &Pipes{keep: keep, liftAfter: liftAfter} }

// Close closes the idle pipes, and what pairs need that have moved much: all pairs must have ended. Pipes that are in use
// nevertheless are closed when they come back.
func (p *Pipes) Close() {
	p.loops.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for _, pipe := range p.idle {
		pipe.close()
	}
	p.idle = nil
}

func (p *Pipes) get() (pipe, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		last := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return last, nil
	}
	p.mu.Unlock()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, os.NewSyscallError("pipe2", err)
	}
	// A refusal (pipe-user-pages-soft) leaves the default size, which works too.
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize)
	return pipe{fds[0], fds[1]}, nil
}

// put takes an empty pipe back.
func (p *Pipes) put(used pipe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut || len(p.idle) >= p.keep {
		used.close()
		return
	}
	p.idle = append(p.idle, used)
}

func (p pipe) close() {
	_ = unix.Close(p.r)
	_ = unix.Close(p.w)
}

// splicer moves one direction's bytes. fill and drain are callbacks of Go's readiness loop: false means wait and call
// again.
type splicer struct {
	pipes *Pipes
	pipe  pipe
	held  bool
	n     int // bytes in the pipe
	err   error
}

// splice moves the bytes of a direction until they end; errLifted: or until they are so many that a loop is to go on.
func (p *pair) splice(w *way, dst, src syscall.Conn) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	fill, drain := w.fill, w.drain
	for total := 0; total < p.pipes.liftAfter || !p.lift(); {
		if err := from.Read(fill); err != nil {
			return p.unlessLifted(err)
		}
		if w.err != nil || w.n == 0 { // an error, or the end
			return w.err
		}
		taken := w.n
		for w.n > 0 && w.err == nil && err == nil {
			err = to.Write(drain)
		}
		p.moved(int64(taken-w.n), w.counter)
		if err = cmp.Or(w.err, err); err != nil {
			return p.unlessLifted(err)
		}
		total += taken
	}
	return errLifted
}

const flags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// fill takes what the socket has. While there is nothing, the pipe serves others.
func (s *splicer) fill(fd uintptr) bool {
	if !s.held {
		if s.pipe, s.err = s.pipes.get(); s.err != nil {
			return true
		}
		s.held = true
	}
	n, err := move(int(fd), s.pipe.w, pipeSize)
	if err == unix.EAGAIN {
		s.release()
		return false
	}
	s.n, s.err = n, os.NewSyscallError("splice", err)
	return true
}

func (s *splicer) drain(fd uintptr) bool {
	n, err := move(s.pipe.r, int(fd), s.n)
	if err == unix.EAGAIN {
		return false
	}
	s.n -= n
	s.err = os.NewSyscallError("splice", err)
	return true
}

// move does not tell Go's scheduler of the call, as package syscall would: it never blocks, and it takes longer (some 50
// us for a megabyte) than the scheduler waits before it wakes another thread to take over, for each of them.
func move(from, to, n int) (int, error) {
	for {
		moved, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), flags)
		switch errno {
		case 0:
			return int(moved), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// release returns the pipe; one that still holds bytes of a failed write must not be used again.
func (s *splicer) release() {
	switch {
	case !s.held:
	case s.n > 0:
		s.pipe.close()
	default:
		s.pipes.put(s.pipe)
	}
	s.held = false
}
