package splice

import (
	"cmp"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop moves the bytes of pairs that move many, without goroutines of theirs: Go's poller wakes one for each direction that
// may go on, and asks to hear of room to write when nobody waits for it, which is a quarter of what such a pair costs.
//
// Epoll tells of a descriptor for as long as it is ready (level-triggered), and each time one pair makes one step, so that
// none waits for another that always has more. What nobody waits for is not asked for.
type loop struct {
	epoll *os.File // Go's poller tells when it has something to tell
	raw   syscall.RawConn
	moved int // bytes in this round; run's own

	mu    sync.Mutex
	pairs map[uint64]*looped // guarded by mu
	next  uint64             // id of the next pair; none is used twice, so what is told of one that has ended since finds nothing
}

// looped is a pair in a loop: its ways[i] leads from the descriptor fds[i] to the other.
type looped struct {
	pair *pair
	loop *loop
	id   uint64
	done chan struct{} // closed when the descriptors are

	mu     sync.Mutex // guards what follows, the descriptors and the pair's ways
	closed bool
	fds    [2]int
	asked  [2]uint32 // what epoll is to tell of
}

// batch is how many events are taken in a round.
const batch = 64

// A round that has moved gatherAbove bytes is followed by a pause of gatherTime, in which more come together than one call
// would find at once: at some Gbit/s a sixth of the CPU time. It is what a network card does when it moderates its
// interrupts, for as long as they do.
const (
	gatherAbove = 64 << 10
	gatherTime  = 50 * time.Microsecond
)

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	_ = unix.SetNonblock(fd, true) // nothing to epoll; to package os, that the file can be waited for
	l := &loop{epoll: os.NewFile(uintptr(fd), "epoll"), pairs: map[uint64]*looped{}}
	if l.raw, err = l.epoll.SyscallConn(); err != nil {
		return nil, errors.Join(err, l.epoll.Close())
	}
	return l, nil
}

// run ends when the descriptor is closed.
func (l *loop) run() {
	var events [batch]unix.EpollEvent
	for {
		var n int
		err := l.raw.Read(func(fd uintptr) bool {
			n = poll(fd, events[:])
			return n > 0
		})
		if err != nil {
			return
		}
		l.moved = 0
		for _, event := range events[:n] {
			token := uint64(uint32(event.Fd)) | uint64(uint32(event.Pad))<<32
			l.mu.Lock()
			p := l.pairs[token>>1]
			l.mu.Unlock()
			if p != nil {
				p.step(int(token&1), event.Events)
			}
		}
		if l.moved > gatherAbove {
			gather()
		}
		runtime.Gosched() // others need not wait until there is nothing to move
	}
}

// gather, as move, does not tell Go's scheduler of the call: it is shorter than one that moves much.
func gather() {
	pause := unix.NsecToTimespec(int64(gatherTime))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0)
}

// poll does not wait, and so, as move, need not tell Go's scheduler of the call.
func poll(epoll uintptr, events []unix.EpollEvent) int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// add takes a pair with its descriptors.
func (l *loop) add(p *pair, fds [2]int) *looped {
	in := &looped{pair: p, loop: l, done: make(chan struct{}), fds: fds}
	l.mu.Lock()
	defer l.mu.Unlock()
	in.id = l.next
	l.next++
	l.pairs[in.id] = in
	return in
}

// start asks for what the pair waits for.
func (in *looped) start() {
	in.mu.Lock()
	err := in.ask()
	in.mu.Unlock()
	if err != nil {
		in.pair.end(outcome{Reset, err})
	}
}

// step does what a side is ready for.
func (in *looped) step(side int, ready uint32) {
	const broken = unix.EPOLLERR | unix.EPOLLHUP
	in.mu.Lock()
	var err error
	if ready&(unix.EPOLLOUT|broken) != 0 && in.pair.ways[1-side].n > 0 {
		err = in.drain(1 - side)
	}
	if ready&(unix.EPOLLIN|broken) != 0 && err == nil {
		err = in.fill(side)
	}
	over := in.pair.ways[0].over && in.pair.ways[1].over
	if err == nil && !over {
		err = in.ask()
	}
	in.mu.Unlock()
	switch {
	case err != nil:
		in.pair.end(outcome{Reset, err})
	case over:
		in.pair.end(outcome{reason: Closed})
	}
}

// fill takes what one side has, and gives it to the other.
func (in *looped) fill(from int) error {
	w := &in.pair.ways[from]
	switch {
	case in.closed || w.over || w.n > 0 || !w.fill(uintptr(in.fds[from])): // nothing to take, or no place for it
		return nil
	case w.err != nil:
		return w.err
	case w.n > 0:
		return in.drain(from)
	}
	w.release()
	if w.over = true; in.pair.ways[1-from].over {
		return nil // closing tells both
	}
	if err := unix.Shutdown(in.fds[1-from], unix.SHUT_WR); err != unix.ENOTCONN { // who has closed already
		return os.NewSyscallError("shutdown", err)
	}
	return nil
}

// drain gives the other side what it takes.
func (in *looped) drain(from int) error {
	w := &in.pair.ways[from]
	if in.closed {
		return nil
	}
	held := w.n
	for w.n > 0 && w.err == nil && w.drain(uintptr(in.fds[1-from])) {
	}
	in.loop.moved += held - w.n
	in.pair.moved(int64(held-w.n), w.counter)
	if w.n == 0 {
		w.release()
	}
	return w.err
}

// ask tells epoll what the pair waits for now.
func (in *looped) ask() error {
	for side, before := range in.asked {
		var now uint32
		if w := &in.pair.ways[side]; w.n == 0 && !w.over {
			now |= unix.EPOLLIN
		}
		if in.pair.ways[1-side].n > 0 {
			now |= unix.EPOLLOUT
		}
		if now == before || in.closed {
			continue
		}
		op := unix.EPOLL_CTL_MOD
		switch {
		case before == 0:
			op = unix.EPOLL_CTL_ADD
		case now == 0: // or it would tell of errors for ever
			op = unix.EPOLL_CTL_DEL
		}
		in.asked[side] = now
		token := in.id<<1 | uint64(side)
		event := unix.EpollEvent{Events: now, Fd: int32(uint32(token)), Pad: int32(uint32(token >> 32))}
		var err error
		closed := in.loop.raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, in.fds[side], &event) })
		if err := cmp.Or(closed, os.NewSyscallError("epoll_ctl", err)); err != nil {
			return err
		}
	}
	return nil
}

// close closes the descriptors, once; with a reset, if so.
func (in *looped) close(reset bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return
	}
	for _, fd := range in.fds {
		if reset {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		_ = unix.Close(fd)
	}
	in.closed = true
	in.loop.mu.Lock()
	delete(in.loop.pairs, in.id)
	in.loop.mu.Unlock()
	close(in.done)
}

// loops are made when the first pair needs one, one for each core that Go uses.
type loops struct {
	once    sync.Once
	all     []*loop // none if the kernel refuses
	next    atomic.Uint32
	running sync.WaitGroup
}

// get is the next pair's loop; nil if there are none.
func (l *loops) get() *loop {
	l.once.Do(func() {
		for range runtime.GOMAXPROCS(0) {
			one, err := newLoop()
			if err != nil {
				break
			}
			l.all = append(l.all, one)
			l.running.Go(one.run)
		}
	})
	if len(l.all) == 0 {
		return nil
	}
	return l.all[l.next.Add(1)%uint32(len(l.all))]
}

func (l *loops) close() {
	l.once.Do(func() {})
	for _, one := range l.all {
		_ = one.epoll.Close()
	}
	l.running.Wait()
}
