package splice

import (
	"math"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Listener accepts Sockets. What package net would set on each of them, and ask the kernel of each, its own socket has:
// they inherit keep-alive and TCP_NODELAY, and their address comes with them.
type Listener struct {
	file   *os.File
	raw    syscall.RawConn
	at     netip.AddrPort
	closed atomic.Bool
}

// Listen listens at an address; port 0 is one that is free.
func Listen(at netip.AddrPort) (*Listener, error) {
	fd, address, err := open(at)
	if err != nil {
		return nil, err
	}
	if err := bind(fd, address); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	bound, err := syscall.Getsockname(fd)
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("getsockname", err)
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "tcp listener"), at: addrPort(bound)}
	if l.raw, err = l.file.SyscallConn(); err != nil {
		_ = l.file.Close()
		return nil, err
	}
	return l, nil
}

func bind(fd int, address unix.Sockaddr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if _, ok := address.(*unix.SockaddrInet6); ok { // "::" takes IPv4 too, whatever the machine's default
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	if err := keepAlive(fd); err != nil {
		return err
	}
	if err := unix.Bind(fd, address); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, math.MaxInt32)) // the kernel makes it net.core.somaxconn
}

// Accept returns the next connection. Errors: net.ErrClosed, os.ErrDeadlineExceeded, and the kernel's, after which it may
// be called again.
func (l *Listener) Accept() (*Socket, error) {
	var fd int
	var from syscall.Sockaddr
	var failed error
	err := l.raw.Read(func(listening uintptr) bool {
		for {
			// Not package unix's, which asks for the protocol of each socket besides.
			fd, from, failed = syscall.Accept4(int(listening), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
			if failed != syscall.EINTR && failed != syscall.ECONNABORTED { // who has left already
				return failed != syscall.EAGAIN
			}
		}
	})
	switch {
	case l.closed.Load():
		if err == nil && failed == nil {
			_ = unix.Close(fd)
		}
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	case failed != nil:
		return nil, os.NewSyscallError("accept4", failed)
	}
	return &Socket{os.NewFile(uintptr(fd), "tcp"), addrPort(from)}, nil
}

// SetDeadline ends Accept at a time.
func (l *Listener) SetDeadline(t time.Time) error { return l.file.SetReadDeadline(t) }

// Close ends Accept, now and for good; connections that were not accepted are reset.
func (l *Listener) Close() error {
	l.closed.Store(true)
	return l.file.Close()
}

// Address is where it listens.
func (l *Listener) Address() netip.AddrPort { return l.at }

func addrPort(address syscall.Sockaddr) netip.AddrPort {
	switch a := address.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
