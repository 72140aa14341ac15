package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// peerCredentials asks the kernel who is at the other end of a unix socket.
type peerCredentials struct{}

// process is the peer of a connection, as the kernel knew it when the connection was accepted.
type process struct {
	credentials.CommonAuthInfo
	pid, uid, gid int
	path          string // of the executable; "" if it could not be read
}

// AuthType implements credentials.AuthInfo.
func (process) AuthType() string { return "unix-peer" }

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	p, err := peerOf(conn)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("peer credentials: %w", err), conn.Close())
	}
	return conn, p, nil
}

func peerOf(conn net.Conn) (process, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return process{}, fmt.Errorf("%T is not a unix socket", conn)
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return process{}, err
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, inner); err != nil {
		return process{}, err
	}
	p := process{pid: int(cred.Pid), uid: int(cred.Uid), gid: int(cred.Gid)}
	p.CommonAuthInfo.SecurityLevel = credentials.PrivacyAndIntegrity
	// Without a path fewer selectors hold and so fewer entries match: this fails closed.
	p.path, _ = os.Readlink(fmt.Sprintf("/proc/%d/exe", p.pid))
	return p, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("peer credentials: server side only")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}
func (c peerCredentials) Clone() credentials.TransportCredentials { return c }
func (peerCredentials) OverrideServerName(string) error           { return nil }
