package forward

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/internal/splice"
	"github.com/periplus-mesh/periplus/proxy/authz"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/record"
)

// ServeTCP carries one connection to a host of the listener's cluster, until both sides have ended or ctx ends. A cause
// of ctx is what the record has as details.
func (f *Forwarder) ServeTCP(ctx context.Context, conn net.Conn, permit authz.Permit, c Connection, t *config.TCP) {
	permit.Require()
	rec := f.record(conn, &c)
	rec.Protocol, rec.Start = record.TCP, time.Now()
	rec.Cluster = chooseTCP(t, rand.Uint64())
	f.passTCP(ctx, conn, t, &rec)
	rec.Duration = time.Since(rec.Start)
	f.observe(&rec)
}

func chooseTCP(t *config.TCP, random uint64) string {
	at := random % max(t.TotalWeight, 1)
	for i := range t.Clusters {
		if w := uint64(t.Clusters[i].Weight); at >= w && i < len(t.Clusters)-1 {
			at -= w
			continue
		}
		return t.Clusters[i].Name
	}
	return ""
}

func (f *Forwarder) passTCP(ctx context.Context, conn net.Conn, t *config.TCP, rec *record.Record) {
	cluster := f.config.Clusters.View().Cluster(rec.Cluster)
	if cluster == nil {
		rec.Flags |= record.NoCluster
		conn.Close()
		return
	}
	up, host, closed, flags := cluster.dialAny(ctx, int(max(t.MaxAttempts, 1)), &rec.Attempts)
	call := Call{Host: host}
	call.Describe(&rec.Host)
	if rec.Flags |= flags; flags != 0 {
		conn.Close()
		return
	}
	defer closed()
	defer host.End()
	host.Begin()
	if rec.Reporter == record.Source {
		rec.Peer, rec.MutualTLS = up.Peer, up.Peer != ""
	}
	if o, ok := f.config.Observer.(record.Opener); ok {
		rec.Opened = true
		o.Open(rec)
	}
	var sent, received atomic.Int64
	reason, _ := splice.Run(ctx, conn, up.Conn, splice.Config{Pipes: f.config.Pipes, IdleTimeout: t.IdleTimeout, Sent: &sent, Received: &received})
	rec.RequestBytes, rec.ResponseBytes, rec.Details = sent.Load(), received.Load(), string(reason)
	if cause := context.Cause(ctx); reason == splice.Cancelled && cause != ctx.Err() {
		rec.Details = cause.Error()
	}
}

// dialAny tries hosts until one takes the connection.
func (c *Cluster) dialAny(ctx context.Context, attempts int, tried *int) (up Upstream, host *balance.Host, closed func(), flags record.Flags) {
	flags = record.NoHealthyUpstream
	for ; c.Set != nil && *tried < attempts; *tried++ {
		next, err := c.Set.Pick(balance.Request{Exclude: func(h *balance.Host) bool { return h == host }})
		if err != nil {
			return up, host, nil, record.NoHealthyUpstream
		}
		host = next
		up, closed, err = c.Dial(ctx, host)
		switch {
		case err == nil:
			*tried++
			c.Set.Report(host, balance.LocalSuccess, time.Now())
			return up, host, closed, 0
		case err == ErrOverflow:
			return up, host, nil, record.Overflow
		case ctx.Err() != nil: // which says nothing about the host
			return up, host, nil, record.ConnectFailure
		}
		c.Set.Report(host, balance.LocalFailure, time.Now())
		flags = record.ConnectFailure
	}
	return up, host, nil, flags
}
