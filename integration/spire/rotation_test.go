package spire_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/trust"
)

const rate = 50 // requests a second, each way

// load is traffic in both directions; stop wants that none failed.
func (w *world) load(t *testing.T) (stop func()) {
	there := harness.StartLoad(t, rate, harness.Requests(t, w.visitor.Outbound, "catalog.shop"))
	back := harness.StartLoad(t, rate, harness.Requests(t, w.catalog.Outbound, "visitor.shop"))
	return func() {
		t.Helper()
		there.NoneFailed(t)
		back.NoneFailed(t)
	}
}

// localAuthority runs 'spire-server localauthority x509' and returns the authority's ID that it prints under name.
func localAuthority(t *testing.T, s side, name string, args ...string) string {
	t.Helper()
	out := s.spire.ServerCommand(append(append([]string{"localauthority", "x509"}, args...), "-output", "json")...)
	var answer map[string]json.RawMessage
	var authority struct {
		ID string `json:"authority_id"`
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := json.Unmarshal(answer[name], &authority); err != nil || authority.ID == "" {
		t.Fatalf("no %s: %v: %s", name, err, out)
	}
	return authority.ID
}

// probe makes the test itself a workload.
func probe(t *testing.T, s side, account string) *trust.WorkloadSource {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.Entry(s.ID(account), "unix:path:"+path)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	source, err := trust.WatchAs(ctx, s.WorkloadSocket, s.ID(account).Path(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

// knows wants that a workload can verify SVIDs under a root.
func knows(source *trust.WorkloadSource, name, authority string) error {
	material, _ := source.Get()
	roots := material.Bundles[spiffeid.RequireTrustDomainFromString(name)]
	if !slices.ContainsFunc(roots, func(r *x509.Certificate) bool { return hex.EncodeToString(r.SubjectKeyId) == authority }) {
		return fmt.Errorf("%q does not know root %s of %s among %d", material.ID, authority, name, len(roots))
	}
	return nil
}

// signedBy wants that a sidecar presents an SVID under a root.
func signedBy(s *harness.Sidecar, authority string) error {
	conn, err := tls.Dial("tcp", s.Inbound, &tls.Config{InsecureSkipVerify: true, ServerName: "outbound_.80_._.catalog.shop.svc.cluster.local", NextProtos: []string{"periplus-http/1.1"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := hex.EncodeToString(conn.ConnectionState().PeerCertificates[0].AuthorityKeyId); got != authority {
		return fmt.Errorf("%s has an SVID by %s, not by %s", s.Name, got, authority)
	}
	return nil
}

// rotated wants that the mesh and the other side are beyond a sequence, with so many roots.
func (w *world) rotated(t *testing.T, name string, beyond uint64, roots int) error {
	d := w.trust(t)[name]
	if d.State != "Published" || d.Sequence <= beyond || d.Peers[0].State != "InSync" || d.Peers[0].Authorities != roots {
		return fmt.Errorf("%+v", d)
	}
	return nil
}

// East's root is replaced the way operators do it, prepare, activate, taint, revoke, each step as soon as 'periplus
// trust status' says that it may be taken.
func (w *world) rootsChangeUnderLoad(t *testing.T) {
	foreign := probe(t, w.west, "probe")
	stop := w.load(t)
	before := w.trust(t)["east.test"].Sequence
	began := time.Now()
	next := localAuthority(t, w.east, "prepared_authority", "prepare")
	took := harness.Eventually(t, 30*time.Second, "the new root is in sync", func() error { return w.rotated(t, "east.test", before, 2) })
	t.Logf("prepared: west's SPIRE server has the new root after %s", took)
	harness.Eventually(t, 15*time.Second, "workloads of west know the new root", func() error { return knows(foreign, "east.test", next) })
	t.Logf("prepared: west's workloads have it after %s", time.Since(began))
	if err := signedBy(w.catalog, next); err == nil {
		t.Error("the new root signs before it was activated")
	}
	localAuthority(t, w.east, "activated_authority", "activate", "-authorityID", next)
	began = time.Now()
	old := localAuthority(t, w.east, "old", "show")
	localAuthority(t, w.east, "tainted_authority", "taint", "-authorityID", old)
	harness.Eventually(t, 30*time.Second, "east's sidecar has an SVID by the new root", func() error { return signedBy(w.catalog, next) })
	t.Logf("activated and tainted: the sidecar has a new SVID after %s", time.Since(began))
	w.afterTaint(t, next)
	t.Logf("tainted: every SVID is by the new root after %s", time.Since(began))
	before = w.trust(t)["east.test"].Sequence
	began = time.Now()
	localAuthority(t, w.east, "revoked_authority", "revoke", "-authorityID", old)
	harness.Eventually(t, 30*time.Second, "the old root is gone", func() error {
		if err := knows(foreign, "east.test", old); err == nil {
			return fmt.Errorf("west's workloads still know it")
		}
		return w.rotated(t, "east.test", before, 1)
	})
	t.Logf("revoked: it is gone in west's workloads after %s", time.Since(began))
	time.Sleep(time.Second)
	stop()
}

// afterTaint waits until the last SVIDs are by the new root: our agent's own, which signs bundles, and SPIRE's agent's,
// which renews it within five seconds and is locked out for ever if the root is gone before.
func (w *world) afterTaint(t *testing.T, authority string) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, "east's agent has an SVID by the new root", func() error {
		conn, err := tls.Dial("tcp", w.east.AgentAddress, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			return err
		}
		defer conn.Close()
		if got := hex.EncodeToString(conn.ConnectionState().PeerCertificates[0].AuthorityKeyId); got != authority {
			return fmt.Errorf("it has one by %s", got)
		}
		return nil
	})
	harness.Eventually(t, 20*time.Second, "SPIRE's agent has an SVID by the new root", func() error {
		if !strings.Contains(w.east.spire.Agent.Log(), "Successfully rotated agent SVID") {
			return errors.New("not in its log")
		}
		return nil
	})
}
