package clusteragent

import (
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// proxies remembers what connected proxies said of themselves, for people; nothing is decided by it.
type proxies struct {
	mu    sync.Mutex
	nodes map[string]proxyNode // by node id
}

type proxyNode struct {
	service, zone, version string
	role                   translate.Role
	noted                  time.Time
}

func (p *proxies) note(node *corev3.Node, role translate.Role, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nodes == nil {
		p.nodes = map[string]proxyNode{}
	}
	p.nodes[node.GetId()] = proxyNode{
		service: node.GetCluster(), zone: node.GetLocality().GetZone(), version: node.GetUserAgentVersion(), role: role, noted: now,
	}
}

// forgetAfter keeps a node whose stream is not listed yet, or not any more.
const forgetAfter = time.Minute

// states describes the streams, and forgets nodes that have none.
func (p *proxies) states(streams []adsserver.StreamStatus, now time.Time) []*pb.ProxyState {
	p.mu.Lock()
	defer p.mu.Unlock()
	connected := make(map[string]bool, len(streams))
	out := make([]*pb.ProxyState, 0, len(streams))
	for _, s := range streams {
		connected[s.NodeID] = true
		node := p.nodes[s.NodeID]
		state := &pb.ProxyState{
			Id: s.NodeID, Service: node.service, Zone: node.zone, Version: node.version, Role: string(node.role), Types: map[string]string{},
		}
		var acked time.Time
		for _, t := range s.Types {
			state.Types[shortNames[t.Type]] = string(t.Status)
			if t.LastAck.After(acked) {
				acked = t.LastAck
			}
		}
		if !acked.IsZero() {
			state.AckAgeMs = now.Sub(acked).Milliseconds()
		}
		out = append(out, state)
	}
	for id, node := range p.nodes {
		if !connected[id] && now.Sub(node.noted) > forgetAfter {
			delete(p.nodes, id)
		}
	}
	return out
}

// shortNames are those of proxy-status; data, never written.
var shortNames = map[xds.Type]string{
	xds.Cluster: "CDS", xds.Endpoints: "EDS", xds.Listener: "LDS", xds.Route: "RDS",
}

// loadReport is what goes up every few seconds: load, proxies, and which bundles the workloads can see.
func (a *agent) loadReport(now time.Time) *pb.LoadReport {
	rows, window := a.load.Take(now)
	cluster := a.credential.Cluster()
	out := &pb.LoadReport{
		Cluster: string(cluster.ID), Region: cluster.Region, WindowMs: uint32(window.Milliseconds()), Rows: rows,
		Proxies: a.proxies.states(a.ads.Streams(), now), Federation: a.federationReport(now),
	}
	if federator := a.federator.Latest(); federator != nil {
		out.BundleSequences = federator.Status().Sequences()
		if own := federator.Status().Own; own.Sequence > 0 {
			if out.BundleSequences == nil {
				out.BundleSequences = map[string]uint64{}
			}
			out.BundleSequences[cluster.TrustDomain.Name()] = own.Sequence
		}
	}
	return out
}
