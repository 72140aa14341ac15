package ads

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/periplus-mesh/periplus/trust"
)

// Limits and buffers of a connection.
const (
	// MaxRequestBytes is the largest request that a server takes. An agent that resumes names every object that it has,
	// with its version, in some 100 bytes each.
	MaxRequestBytes = 16 << 20
	// MaxResponseBytes is the largest response that a client takes. A response of several resources is bounded by
	// [xds.MaxResponseBytes], but one resource may be larger: all routes of a sidecar are one, with some 2 KiB for each
	// HTTP port in the mesh.
	MaxResponseBytes = 64 << 20
	// maxStreams bounds the streams and calls that one connection has open; a client needs a handful.
	maxStreams = 250
	// readBuffer is small because a server has thousands of connections that say little.
	readBuffer = 4 << 10
	// requestWindow and responseWindow are what a peer may send before it is read. That they are fixed also keeps gRPC
	// from measuring the connection with a ping for each message, which would cost both ends as much as the message. A
	// response of the usual size must not wait for the other side of the world.
	requestWindow, responseWindow = 64 << 10, 1 << 20
)

// ServerOptions are the gRPC options that a server of discovery needs: codec, keepalive, limits and buffers.
// Credentials are the caller's.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(Codec()),
		grpc.WaitForHandlers(true), // a stream that is about to begin is not one that nobody waits for
		grpc.MaxRecvMsgSize(MaxRequestBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ReadBufferSize(readBuffer),
		grpc.SharedWriteBuffer(true),
		grpc.StaticStreamWindowSize(requestWindow),
		grpc.StaticConnWindowSize(requestWindow),
		grpc.ConnectionTimeout(time.Minute),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// DialFunc opens a connection to host:port.
type DialFunc func(ctx context.Context, address string) (net.Conn, error)

// DialTLS returns the options to dial a control plane whose SPIFFE ID authorize accepts. source nil: plaintext.
// dial nil: TCP.
func DialTLS(source trust.Source, authorize trust.Authorizer, dial DialFunc) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if source != nil {
		transport = credentials.NewTLS(trust.ClientConfig(source, authorize))
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxResponseBytes)),
		grpc.WithStaticStreamWindowSize(responseWindow),
		grpc.WithStaticConnWindowSize(responseWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
	}
	if dial != nil {
		options = append(options, grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dial(ctx, address)
		}))
	}
	return options
}
