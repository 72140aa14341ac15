package clusteragent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/authority"
	"github.com/periplus-mesh/periplus/trust/continuity"
	"github.com/periplus-mesh/periplus/trust/spire"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// embedded runs the authority of east.test with an entry for the agent.
func embedded(t *testing.T) authority.Config {
	dir, err := os.MkdirTemp("", "ca") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	c := authority.Config{
		TrustDomain: east().TrustDomain, DataDir: filepath.Join(dir, "data"), ServerSocket: filepath.Join(dir, "s.sock"),
		WorkloadSocket: filepath.Join(dir, "w.sock"), Log: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- authority.Run(ctx, c) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	client, err := spire.Dial(c.ServerSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	parent := spiffeid.RequireFromPath(c.TrustDomain, "/node")
	entry := spire.Entry{ID: mesh.AgentIdentity(c.TrustDomain), ParentID: parent, Selectors: []string{"unix:uid:" + uid()}}
	if err := client.EnsureEntries(t.Context(), []spire.Entry{entry}); err != nil {
		t.Fatal(err)
	}
	return c
}

// The own bundle goes up, signed; the others' reach the SPIRE server and so every workload; the load report proves
// it; and a bundle without continuity changes nothing (T4).
func TestT4Federation(t *testing.T) {
	westCA := trusttest.NewCA("west.test")
	publish := func(ca *trusttest.CA, signer *trust.Material, sequence uint64) *mesh.Federation {
		f := &mesh.Federation{TrustDomain: westCA.TrustDomain, Cluster: "west", Sequence: sequence, Bundle: ca.JWKS(sequence)}
		var err error
		if f.Signature, f.Chain, err = continuity.Sign(signer, f.TrustDomain, sequence, f.Bundle); err != nil {
			t.Fatal(err)
		}
		return f
	}
	agentOfWest := westCA.SVID("/periplus/agent", 3600e9)
	plane := newController(t, east(), append(west(), publish(westCA, agentOfWest, 1))...)
	sockets := embedded(t)
	f := newFixture(t, plane)
	f.workloadSocket, f.serverSocket = "unix://"+sockets.WorkloadSocket, "unix://"+sockets.ServerSocket
	f.start()
	f.ready()

	plane.has(mesh.FederationKey("east.test"), func(o mesh.Object) bool {
		own := o.(*mesh.Federation)
		_, err := continuity.Verify(nil, continuity.Proof{TrustDomain: own.TrustDomain, Sequence: own.Sequence, Bundle: own.Bundle, Signature: own.Signature, Chain: own.Chain}, now())
		return err == nil
	})
	source, err := trust.Watch(t.Context(), f.workloadSocket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	roots := func(domain spiffeid.TrustDomain) int {
		material, _ := source.Get()
		return len(material.Bundles[domain])
	}
	eventually(t, "workloads trust west and the control plane", func() bool { return roots(westCA.TrustDomain) == 1 && roots(plane.ca.TrustDomain) == 1 })
	eventually(t, "the report proves it", func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		last := len(plane.loads) - 1
		return last >= 0 && plane.loads[last].GetBundleSequences()["west.test"] == 1 && plane.loads[last].GetBundleSequences()["east.test"] > 0
	})

	evil := trusttest.NewCA("west.test")
	plane.store.Update(mesh.Delta{Upserts: []mesh.Object{publish(evil, evil.SVID("/periplus/agent", 3600e9), 2)}})
	eventually(t, "alarm", func() bool { return f.metric("periplus_agent_bundles_refused_total") == "1" })
	eventually(t, "the report says why", func() bool {
		plane.mu.Lock()
		defer plane.mu.Unlock()
		return slices.ContainsFunc(plane.loads[len(plane.loads)-1].GetFederation().GetBundles(), func(b *pb.HeldBundle) bool {
			return b.GetTrustDomain() == "west.test" && b.GetSequence() == 1 && strings.Contains(b.GetProblem(), "signed by a stranger")
		})
	})
	westCA.Rotate()
	plane.store.Update(mesh.Delta{Upserts: []mesh.Object{publish(westCA, agentOfWest, 3)}})
	eventually(t, "west's new root arrives", func() bool { return roots(westCA.TrustDomain) == 2 })
	material, _ := source.Get()
	if slices.ContainsFunc(material.Bundles[westCA.TrustDomain], evil.Root().Equal) {
		t.Error("the forged root is trusted")
	}
}
