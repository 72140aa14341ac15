package forward

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/http1"
	"github.com/periplus-mesh/periplus/proxy/http1/message"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// Carrier reaches hosts that speak HTTP/2 only.
type Carrier interface {
	// Carry returns a connection that speaks HTTP/1.1 and carries one exchange to the call's host; until is how long it
	// may wait for its turn, zero: as long as ctx. Closing it gives the exchange up. Errors are those of Cluster.Dial
	// and Cluster.Queue; those of reading a response may wrap ErrRefused and ErrReset.
	Carry(ctx context.Context, call *Call, until time.Time) (conn net.Conn, peer string, err error)
}

// ErrRefused: the host did not process the request, which can be sent again (RFC 9113, section 8.7). ErrReset: it reset
// the stream.
var (
	ErrRefused = errors.New("stream refused")
	ErrReset   = errors.New("stream reset")
)

// connect returns a connection to the host that was picked.
func (s *session) connect(ctx context.Context, fresh bool) (*http1.Conn, error) {
	cluster := s.call.Cluster
	if cluster.Settings.Protocol != config.UpstreamHTTP2 {
		return cluster.connect(ctx, &s.call, fresh)
	}
	conn, peer, err := s.f.config.HTTP2.Carry(ctx, &s.call, s.call.TryUntil(s.call.now()))
	if err != nil {
		return nil, err
	}
	up := http1.NewConn(conn, s.f.config.Buffers, 0)
	up.Peer = peer
	return up, nil
}

// carriable is false, with the call's Reply set, for what cannot go to a cluster that speaks HTTP/2 only.
func (s *session) carriable(r *message.Request) bool {
	if s.call.Cluster.Settings.Protocol != config.UpstreamHTTP2 || s.f.config.HTTP2 != nil && r.Upgrade() == "" {
		return true
	}
	return s.call.answer(http.StatusBadGateway, record.UpstreamProtocol, "the upstream speaks HTTP/2 only, in which nothing is upgraded", "upstream_protocol_not_spoken")
}
