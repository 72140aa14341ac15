package admin

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
)

// How old what an agent says of its SPIRE server may be: it reports every two seconds and looks at the server every
// five.
const (
	maxReportAge = 15 * time.Second
	maxLookAge   = 15 * time.Second
)

// TrustStatus implements MeshService: what the mesh agreed on, against what each agent found in its SPIRE server.
func (s *server) TrustStatus(context.Context, *connect.Request[pb.TrustStatusRequest]) (*connect.Response[pb.TrustStatusResponse], error) {
	view, snapshot, response := s.Board.View(time.Now()), s.latest(), &pb.TrustStatusResponse{}
	for f := range snapshot.Federations() {
		status := ownerStatus(f, view[f.Cluster])
		for c := range snapshot.Clusters() {
			if c.ID != f.Cluster {
				status.Peers = append(status.Peers, peerStatus(f, c.ID, view[c.ID]))
			}
		}
		response.Items = append(response.Items, status)
	}
	return connect.NewResponse(response), nil
}

// ownerStatus compares the mesh's bundle with the one of the domain's own SPIRE server.
func ownerStatus(f *mesh.Federation, owner observe.Seen) *pb.TrustDomainStatus {
	out := &pb.TrustDomainStatus{TrustDomain: f.TrustDomain.Name(), Cluster: string(f.Cluster), Sequence: f.Sequence, AgeMs: -1, HeldMs: -1}
	if bundle, err := trust.ParseBundle(f.TrustDomain, f.Bundle); err == nil {
		out.Authorities, out.ExpiresAtMs = uint32(len(bundle.X509)), bundle.Expiry().UnixMilli()
	}
	held := heldBy(owner, f)
	if held != nil {
		out.OwnSequence, out.HeldMs = held.GetSequence(), held.GetHeldMs()
	}
	if owner.Load != nil {
		out.AgeMs = owner.LoadAge.Milliseconds()
	}
	if out.State, out.Reason = unsure(owner); out.State != "" {
		return out
	}
	switch {
	case held == nil:
		out.State, out.Reason = "Unknown", "its agent has not read the own bundle yet"
	case held.GetProblem() != "":
		out.State, out.Reason = "Refused", held.GetProblem()
	case held.GetSequence() > f.Sequence:
		out.State = "Behind"
	default:
		out.State = "Published"
	}
	return out
}

// peerStatus compares what cluster c holds with the mesh's bundle.
func peerStatus(f *mesh.Federation, c mesh.ClusterID, seen observe.Seen) *pb.TrustPeerStatus {
	out := &pb.TrustPeerStatus{Cluster: string(c), AgeMs: -1, HeldMs: -1}
	held := heldBy(seen, f)
	if held != nil {
		out.Sequence, out.Authorities, out.ExpiresAtMs = held.GetSequence(), held.GetAuthorities(), held.GetExpiresAtMs()
		out.Delivery = held.GetDelivery()
		if held.GetAuthorities() > 0 {
			out.HeldMs = held.GetHeldMs()
		}
	}
	if seen.Load != nil {
		out.AgeMs = seen.LoadAge.Milliseconds()
	}
	if out.State, out.Reason = unsure(seen); out.State != "" {
		return out
	}
	switch {
	case held.GetProblem() != "":
		out.State, out.Reason = "Refused", held.GetProblem()
	case held.GetAuthorities() == 0:
		out.State, out.Reason = "Missing", seen.Load.GetFederation().GetError()
	case held.GetSequence() < f.Sequence:
		out.State, out.Reason = "Behind", seen.Load.GetFederation().GetError()
	case held.GetSequence() > f.Sequence:
		out.State = "Ahead"
	default:
		out.State = "InSync"
	}
	return out
}

// unsure is the state where nothing certain can be said of what a cluster holds; "": it can.
func unsure(seen observe.Seen) (state, reason string) {
	if seen.Load == nil {
		return "Unknown", "its agent has not reported yet"
	}
	report := seen.Load.GetFederation()
	looked := time.Duration(report.GetDoneAgeMs())*time.Millisecond + seen.LoadAge
	switch {
	case seen.LoadAge > maxReportAge:
		return "Stale", fmt.Sprintf("its agent reported last %s ago", seen.LoadAge.Round(time.Second))
	case report == nil:
		return "NotFederated", "its agent was given no SPIRE server (--server-socket, --server-address)"
	case report.GetDoneAgeMs() < 0:
		return "Unknown", report.GetError()
	case looked > maxLookAge:
		return "Stale", fmt.Sprintf("its agent saw the SPIRE server last %s ago: %s", looked.Round(time.Second), report.GetError())
	}
	return "", ""
}

// heldBy is what a cluster last said of a domain; nil: nothing.
func heldBy(seen observe.Seen, f *mesh.Federation) *pb.HeldBundle {
	for _, b := range seen.Load.GetFederation().GetBundles() {
		if b.GetTrustDomain() == f.TrustDomain.Name() {
			return b
		}
	}
	return nil
}
