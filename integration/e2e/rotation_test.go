package e2e

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/periplus-mesh/periplus/trust"
)

// Certificates of a minute rotate under traffic, and a pause of the authority loses nothing.
func TestRotationUnderTraffic(t *testing.T) {
	running.withoutRetries(t, "catalog")
	before := map[string]string{}
	for _, sidecar := range []string{visitorA, "catalog-eu-west-a"} {
		before[sidecar] = read(t, running.admin(sidecar)+"/certs")
	}
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	running.act(t, "pause", "authority-eu-west")
	t.Cleanup(func() { running.control.Act(context.Background(), "resume", "authority-eu-west") })
	time.Sleep(5 * time.Second)
	running.act(t, "resume", "authority-eu-west")
	within(t, 45*time.Second, "new certificates", func() error {
		for sidecar, old := range before {
			if read(t, running.admin(sidecar)+"/certs") == old {
				return fmt.Errorf("%s has the old one", sidecar)
			}
		}
		return nil
	})
	time.Sleep(time.Second)
	noneFailed(t, l.stop())
}

// roots are the authorities that a workload verifies SVIDs of a trust domain under, by their IDs.
func roots(source trust.Source, domain string) (ids []string) {
	material, _ := source.Get()
	for _, root := range material.Bundles[spiffeid.RequireTrustDomainFromString(domain)] {
		ids = append(ids, hex.EncodeToString(root.SubjectKeyId))
	}
	return ids
}

// issuer is the authority of the SVID that is presented at an address.
func issuer(t *testing.T, address, alpn string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: sni, NextProtos: []string{alpn}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return hex.EncodeToString(conn.ConnectionState().PeerCertificates[0].AuthorityKeyId)
}

// The root of a cluster's authority is replaced as operators do it: prepare, wait until every other domain knows it,
// activate, taint, wait until nothing is signed by the old one, revoke. No request fails, within the domain or into it
// from another.
func TestRootRotationUnderTraffic(t *testing.T) {
	running.withoutRetries(t, "catalog")
	running.act(t, "stop", "catalog-us-east-a", "catalog-us-east-b", "catalog-ap-south-a", "catalog-ap-south-b") // eu-west serves all
	foreign := ownIdentity(t, "us-east", "/ns/shop/sa/garbage")
	conn, err := grpc.NewClient("unix://"+filepath.Join(running.plan.Dir, "authority", "eu-west", "server.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	authority, ctx := localauthorityv1.NewLocalAuthorityClient(conn), t.Context()
	loads := []*load{startLoad(t, running.outbound(visitorA), "catalog.shop"), startLoad(t, running.outbound("visitor-us-east-a"), "catalog.shop")}

	before := roots(foreign, "eu-west.mesh")
	if len(before) != 1 {
		t.Fatalf("roots of eu-west at first: %v", before)
	}
	old := before[0]
	prepared, err := authority.PrepareX509Authority(ctx, &localauthorityv1.PrepareX509AuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next := prepared.GetPreparedAuthority().GetAuthorityId()
	took := within(t, 30*time.Second, "another domain knows the new root", func() error {
		if now := roots(foreign, "eu-west.mesh"); !slices.Contains(now, next) || !slices.Contains(now, old) {
			return fmt.Errorf("it has %v, want %s and %s", now, old, next)
		}
		return nil
	})
	t.Logf("another domain knows the new root after %v", took)
	running.settle()
	if _, err := authority.ActivateX509Authority(ctx, &localauthorityv1.ActivateX509AuthorityRequest{AuthorityId: next}); err != nil {
		t.Fatal(err)
	}
	if _, err := authority.TaintX509Authority(ctx, &localauthorityv1.TaintX509AuthorityRequest{AuthorityId: old}); err != nil {
		t.Fatal(err)
	}
	took = within(t, 45*time.Second, "every SVID is by the new root", func() error {
		for _, zone := range []string{"a", "b"} {
			for _, service := range []string{"storefront", "catalog", "inventory"} {
				name := service + "-eu-west-" + zone
				if by := issuer(t, running.inbound(name), "periplus-http/1.1"); by != next {
					return fmt.Errorf("%s has one by %s", name, by)
				}
			}
		}
		if by := issuer(t, prefix+".1.2:15012", "h2"); by != next {
			return fmt.Errorf("the agent has one by %s", by)
		}
		return nil
	})
	t.Logf("every SVID is by the new root after %v", took)
	running.settle()
	if _, err := authority.RevokeX509Authority(ctx, &localauthorityv1.RevokeX509AuthorityRequest{AuthorityId: old}); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "the old root is gone elsewhere", func() error {
		if now := roots(foreign, "eu-west.mesh"); !slices.Equal(now, []string{next}) {
			return fmt.Errorf("it has %v, want %s", now, next)
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	for _, l := range loads {
		results := l.stop()
		noneFailed(t, results)
		near(t, last(results, 2*time.Second), region, map[string]float64{"eu-west": 1})
	}
}
