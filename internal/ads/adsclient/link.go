package adsclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// link is one stream to one target.
type link struct {
	index   int // of the target
	target  string
	address string
	conn    *grpc.ClientConn
	stream  grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	cancel  context.CancelFunc
	opened  time.Time

	accepted  chan struct{} // closed when the server accepted the stream
	responses chan *discoveryv3.DeltaDiscoveryResponse
	failed    chan error
	receiver  sync.WaitGroup
}

// dial opens a stream that lives with ctx; the attempt ends with during. Nothing was sent on it yet.
func (c *client) dial(ctx, during context.Context, index int) (*link, error) {
	target := c.config.Targets[index]
	conn, err := grpc.NewClient("passthrough:///"+target.Address, ads.DialTLS(c.config.Source, target.Authorize, c.config.Dial)...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", target.Name, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	timeout, abandon := time.AfterFunc(c.config.ConnectTimeout, cancel), context.AfterFunc(during, cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	inTime, wanted := timeout.Stop(), abandon()
	if err == nil && !(inTime && wanted) {
		err = context.Cause(ctx)
	}
	if err != nil {
		cancel()
		return nil, errors.Join(fmt.Errorf("%s at %s: %w", target.Name, target.Address, err), conn.Close())
	}
	return &link{
		index: index, target: target.Name, address: target.Address, conn: conn, stream: stream, cancel: cancel, opened: time.Now(),
		accepted:  make(chan struct{}),
		responses: make(chan *discoveryv3.DeltaDiscoveryResponse), failed: make(chan error, 1),
	}, nil
}

// begin sends the first requests and waits until the server accepts the stream; false: it did not say within the
// timeout, which servers other than ours need not before they have something to send.
func (l *link) begin(c *client, requests []xds.Request, timeout time.Duration) (bool, error) {
	l.receiver.Go(l.receive)
	for i, r := range requests {
		m := ads.DeltaMessage(r)
		if i == 0 {
			m.Node = c.config.Node
		}
		if err := l.stream.Send(m); err != nil {
			return false, fmt.Errorf("%s: %w", l.target, l.reason(err))
		}
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-l.accepted:
		return true, nil
	case err := <-l.failed:
		return false, fmt.Errorf("%s: %w", l.target, err)
	case <-timer.C:
		return false, nil
	}
}

// reason is why the stream ended: Send only says that it did.
func (l *link) reason(err error) error {
	timeout := time.After(time.Second)
	for {
		select {
		case <-l.responses: // too late
		case failed := <-l.failed:
			return failed
		case <-timeout:
			return err
		}
	}
}

// receive hands over responses until the stream ends.
func (l *link) receive() {
	header, err := l.stream.Header()
	if err == nil && header != nil {
		close(l.accepted)
	}
	for {
		response, err := l.stream.Recv()
		if err != nil {
			l.failed <- err
			return
		}
		select {
		case l.responses <- response:
		case <-l.stream.Context().Done():
			l.failed <- l.stream.Context().Err()
			return
		}
	}
}

// close ends the stream and waits for its goroutine.
func (l *link) close() {
	l.cancel()
	_ = l.conn.Close() // the stream is over either way
	l.receiver.Wait()
}
