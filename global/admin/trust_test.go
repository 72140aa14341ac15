package admin

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func TestTrustStates(t *testing.T) {
	f := &mesh.Federation{TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"), Cluster: "west", Sequence: 7}
	report := func(age time.Duration, r *pb.FederationReport) observe.Seen {
		return observe.Seen{Load: &pb.LoadReport{Federation: r}, LoadAge: age}
	}
	holding := func(b *pb.HeldBundle) *pb.FederationReport {
		b.TrustDomain = "west.mesh"
		return &pb.FederationReport{Bundles: []*pb.HeldBundle{{TrustDomain: "other.mesh", Sequence: 99, Authorities: 1}, b}}
	}
	failing := holding(&pb.HeldBundle{Sequence: 7, Authorities: 1})
	failing.DoneAgeMs, failing.Error = 20_000, "SPIRE server: does it run?"
	for _, row := range []struct {
		name        string
		seen        observe.Seen
		peer, owner string
		reason      string // of the peer
	}{
		{"never heard", observe.Seen{}, "Unknown", "Unknown", "has not reported"},
		{"heard long ago", report(time.Minute, holding(&pb.HeldBundle{Sequence: 7, Authorities: 1})), "Stale", "Stale", "1m0s ago"},
		{"no SPIRE server", report(0, nil), "NotFederated", "NotFederated", "--server-socket"},
		{"never looked", report(0, &pb.FederationReport{DoneAgeMs: -1, Error: "no SVID"}), "Unknown", "Unknown", "no SVID"},
		{"looked long ago", report(time.Second, failing), "Stale", "Stale", "21s ago: SPIRE server"},
		{"nothing held", report(0, &pb.FederationReport{}), "Missing", "Unknown", ""},
		{"same", report(0, holding(&pb.HeldBundle{Sequence: 7, Authorities: 1})), "InSync", "Published", ""},
		{"older", report(0, holding(&pb.HeldBundle{Sequence: 6, Authorities: 1})), "Behind", "Published", ""},
		{"newer", report(0, holding(&pb.HeldBundle{Sequence: 8, Authorities: 1})), "Ahead", "Behind", ""},
		{"sequence 0", report(0, holding(&pb.HeldBundle{Authorities: 1})), "Behind", "Published", ""},
		{"refused, older held", report(0, holding(&pb.HeldBundle{Sequence: 6, Authorities: 1, Problem: "signed by a stranger"})), "Refused", "Refused", "stranger"},
		{"refused, nothing held", report(0, holding(&pb.HeldBundle{Problem: "signed by a stranger"})), "Refused", "Refused", "stranger"},
	} {
		peer, owner := peerStatus(f, "east", row.seen), ownerStatus(f, row.seen)
		if peer.GetState() != row.peer || owner.GetState() != row.owner || !strings.Contains(peer.GetReason(), row.reason) {
			t.Errorf("%s: peer %s (%s), owner %s; want %s (%s), %s", row.name, peer.GetState(), peer.GetReason(), owner.GetState(), row.peer, row.reason, row.owner)
		}
	}
}
