package global

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/global/replica"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/continuity"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func TestMembersComeAndGoByRPC(t *testing.T) {
	c := start(t, "a", "b", "c")
	c.register("a", cluster("west", "eu-west", "10.1.0.0/16"))
	if err := pki.AddReplica(filepath.Join(c.dir, "pki"), "d"); err != nil {
		t.Fatal(err)
	}
	d := c.listen("d")
	c.run("d", d) // it neither bootstraps nor asks: it waits to be added
	_, meshes := c.admin("b")
	add := connect.NewRequest(&pb.AddMemberRequest{Id: "d", Address: d.RaftAdvertise + "," + d.MeshAdvertise, Voter: true})
	for range 2 { // the second time changes nothing
		if _, err := meshes.AddMember(t.Context(), add); err != nil {
			t.Fatal(err)
		}
	}
	c.waitReady("d")
	if n := c.members("d"); n != 4 {
		t.Errorf("%d members after it was added", n)
	}
	c.register("d", cluster("east", "us-east", "10.2.0.0/16"))
	if _, err := meshes.AddMember(t.Context(), connect.NewRequest(&pb.AddMemberRequest{Id: "e", Address: "nowhere"})); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("an address that is none: %v", err)
	}
	if _, err := meshes.RemoveMember(t.Context(), connect.NewRequest(&pb.RemoveMemberRequest{Id: "d"})); err != nil {
		t.Fatal(err)
	}
	if err := c.stops["d"](); err != nil && !errors.Is(err, replica.ErrRemoved) {
		t.Errorf("the removed replica: %v", err)
	}
	delete(c.stops, "d")
	if n := c.members("a"); n != 3 {
		t.Errorf("%d members after it was removed", n)
	}
	if _, err := meshes.RemoveMember(t.Context(), connect.NewRequest(&pb.RemoveMemberRequest{Id: "d"})); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func (c *controllers) members(at string) int {
	c.t.Helper()
	_, meshes := c.admin(at)
	overview, err := meshes.Overview(c.t.(*testing.T).Context(), connect.NewRequest(&pb.OverviewRequest{}))
	if err != nil {
		c.t.Fatal(err)
	}
	return len(overview.Msg.GetMembers())
}

func bundle(m *trust.Material, ca *trusttest.CA, sequence uint64) *pb.Object {
	jwks := ca.JWKS(sequence)
	signature, chain, err := continuity.Sign(m, m.ID.TrustDomain(), sequence, jwks)
	if err != nil {
		panic(err)
	}
	return &pb.Object{Kind: &pb.Object_Federation{Federation: &pb.Federation{
		TrustDomain: m.ID.TrustDomain().Name(), Cluster: "west", Sequence: sequence, Bundle: jwks, Signature: signature, Chain: chain,
	}}}
}

// T3: a bundle is followed when it is signed under the one that is held, and by nobody else. What one replica observes
// of who holds it is shared with the others.
func TestBundlesFollowContinuityAndLoadsAreShared(t *testing.T) {
	c := start(t, "a", "b", "c")
	west, err := report(t, pb.NewAgentServiceClient(c.agent("a", c.join("a", cluster("west", "eu-west", "10.1.0.0/16")))), "1")
	if err != nil {
		t.Fatal(err)
	}
	ca, thief := trusttest.NewCA("west.mesh"), trusttest.NewCA("west.mesh")
	const agent = "/periplus/agent"
	if ack := west.update([]*pb.Object{bundle(ca.SVID(agent, time.Hour), ca, 1)}); len(ack.GetRejections()) != 0 {
		t.Fatalf("the first bundle: %v", ack)
	}
	signer := ca.SVID(agent, time.Hour) // under the root that is known
	ca.Rotate()
	for what, object := range map[string]*pb.Object{
		"another's key":            bundle(thief.SVID(agent, time.Hour), thief, 2),
		"a key under the new root": bundle(ca.SVID(agent, time.Hour), ca, 2),
	} {
		ack := west.update([]*pb.Object{object})
		if len(ack.GetRejections()) != 1 || !strings.HasPrefix(ack.GetRejections()[0].GetReason(), "bundle: ") {
			t.Errorf("%s: %v", what, ack)
		}
	}
	if ack := west.update([]*pb.Object{bundle(signer, ca, 2)}); len(ack.GetRejections()) != 0 {
		t.Errorf("the second bundle: %v", ack)
	}
	east, err := report(t, pb.NewAgentServiceClient(c.agent("b", c.join("b", cluster("east", "us-east", "10.2.0.0/16")))), "1")
	if err != nil {
		t.Fatal(err)
	}
	load := &pb.LoadReport{Federation: &pb.FederationReport{Bundles: []*pb.HeldBundle{{TrustDomain: "west.mesh", Sequence: 2, Authorities: 2}}}}
	if err := east.stream.Send(&pb.ReportRequest{Message: &pb.ReportRequest_Load{Load: load}}); err != nil {
		t.Fatal(err)
	}
	_, meshes := c.admin("c") // where neither agent is
	eventually(t, "replica c knows what east holds", func() bool {
		status, err := meshes.TrustStatus(t.Context(), connect.NewRequest(&pb.TrustStatusRequest{}))
		if err != nil || len(status.Msg.GetItems()) != 1 {
			return false
		}
		item := status.Msg.GetItems()[0]
		return item.GetTrustDomain() == "west.mesh" && item.GetSequence() == 2 && item.GetAuthorities() == 2 &&
			slices.ContainsFunc(item.GetPeers(), func(p *pb.TrustPeerStatus) bool {
				return p.GetCluster() == "east" && p.GetSequence() == 2 && p.GetState() == "InSync"
			})
	})
}
