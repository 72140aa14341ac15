package splice

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is an end of a TCP connection, in place of *net.TCPConn: it asks the kernel neither for its addresses nor for
// options that the caller did not want or that a listener's connections inherit, and it connects and sends in one step.
// For connections that live for a few packets those calls are a good part of the cost.
type Socket struct {
	*os.File
	remote netip.AddrPort
}

// Connect reaches an address and sends the first bytes, until the deadline or the end of ctx. n counts those that were
// sent; beside an error it is 0 unless the connection was made.
func Connect(ctx context.Context, to netip.AddrPort, deadline time.Time, first []byte) (s *Socket, n int, err error) {
	fd, err := connecting(to)
	if err != nil {
		return nil, 0, err
	}
	s = &Socket{os.NewFile(uintptr(fd), "tcp"), to} // in non-blocking mode, so package os waits as package net does
	_ = s.SetWriteDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = s.File.Close() })
	n, err = s.Write(first) // waits for the connection, and fails as it failed
	if !stop() {
		return nil, n, context.Cause(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, n, err
	}
	_ = s.SetWriteDeadline(time.Time{})
	return s, n, nil
}

// connecting is a socket on its way.
func connecting(to netip.AddrPort) (fd int, err error) {
	fd, address, err := open(to)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, address); err != nil && err != unix.EINPROGRESS && err != unix.EINTR {
		_ = unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// open makes a socket without delay (TCP_NODELAY) of the family of an address, which it returns in the kernel's form.
func open(at netip.AddrPort) (fd int, address unix.Sockaddr, err error) {
	ip, family := at.Addr().Unmap(), unix.AF_INET6
	address = &unix.SockaddrInet6{Port: int(at.Port()), Addr: ip.As16()}
	if ip.Is4() {
		family, address = unix.AF_INET, &unix.SockaddrInet4{Port: int(at.Port()), Addr: ip.As4()}
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	return fd, address, nil
}

// Remote is the address of the other end, an IPv4 one as such.
func (s *Socket) Remote() netip.AddrPort { return s.remote }

// RemoteAddr is Remote as package net has it.
func (s *Socket) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.remote) }

// LocalAddr is nil: nobody asked for it.
func (s *Socket) LocalAddr() net.Addr { return nil }

// CloseWrite sends the end.
func (s *Socket) CloseWrite() error {
	return s.control(func(fd int) error { return os.NewSyscallError("shutdown", unix.Shutdown(fd, unix.SHUT_WR)) })
}

// SetLinger is that of *net.TCPConn.
func (s *Socket) SetLinger(seconds int) error {
	return s.control(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
}

// KeepAlive has the kernel probe a peer that is silent, as package net does by default: after 15 s, every 15 s, 9 times.
func (s *Socket) KeepAlive() error { return s.control(keepAlive) }

func keepAlive(fd int) error {
	for option, value := range map[int]int{unix.TCP_KEEPIDLE: 15, unix.TCP_KEEPINTVL: 15, unix.TCP_KEEPCNT: 9} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, option, value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1))
}

func (s *Socket) control(do func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var done error
	if err := raw.Control(func(fd uintptr) { done = do(int(fd)) }); err != nil {
		return err
	}
	return done
}

// inKernel is a connection whose bytes can move without coming here. TLS over TCP is none.
func inKernel(conn net.Conn) (syscall.Conn, bool) {
	switch conn := conn.(type) {
	case *net.TCPConn:
		return conn, true
	case *Socket:
		return conn, true
	}
	return nil, false
}
