package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

func follower(t testing.TB, continuity func(held, next *mesh.Federation) error) *Follower {
	ca := trusttest.NewCA("plane.test")
	f, err := New(Config{
		Owner: own.Owner{Cluster: "east", Domain: spiffeid.RequireTrustDomainFromString("east.test")}, Store: new(mesh.Store),
		Targets: []adsclient.Target{{}}, Source: ca.Source("/agent/east", time.Hour), Continuity: continuity,
		OnCluster: func(c *mesh.Cluster) error { return nil }, Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func update(objects ...mesh.Object) adsclient.Update {
	u := adsclient.Update{Type: xds.MeshObject}
	for _, o := range objects {
		u.Upserts = append(u.Upserts, adsclient.Item{Name: string(o.Key()), Body: meshpb.Marshal(o)})
	}
	return u
}

func service(cluster mesh.ClusterID, name string) *mesh.Service {
	return &mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: name}, Cluster: cluster, Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}
}

func federation(sequence uint64, bundle string) *mesh.Federation {
	return &mesh.Federation{TrustDomain: spiffeid.RequireTrustDomainFromString("west.test"), Cluster: "west", Sequence: sequence, Bundle: []byte(bundle)}
}

func (f *Follower) get(key mesh.Key) mesh.Object {
	snapshot, _ := f.config.Store.Latest()
	object, _ := snapshot.Get(key)
	return object
}

func rising(held, next *mesh.Federation) error {
	if held != nil && next.Sequence <= held.Sequence {
		return errors.New("not continuous")
	}
	return nil
}

func TestBadObjectsAreNamedAndTheRestApplied(t *testing.T) {
	f := follower(t, rising)
	u := update(service("west", "a"), service("east", "b"), &mesh.Cursor{Cluster: "west"}, service("west", "c"))
	u.Upserts[3].Name = "service/shop/other/west"
	u.Upserts = append(u.Upserts, adsclient.Item{Name: "service/shop/d/west", Body: []byte{0xff}})
	err := f.Apply(u)
	for _, want := range []string{"service/shop/b/east", "cursor/west", "service/shop/other/west", "service/shop/d/west"} {
		if err == nil || !strings.Contains(err.Error(), want) || f.Status().Refused[want] == "" {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
	snapshot, _ := f.config.Store.Latest()
	if snapshot.Len() != 1 || f.get("service/shop/a/west") == nil {
		t.Errorf("%d objects", snapshot.Len())
	}
	if err := f.Apply(update(service("west", "d"))); err != nil || f.Status().Refused["service/shop/d/west"] != "" {
		t.Errorf("refused still though good now: %v", err)
	}
}

func TestOwnObjectsCannotBeRemoved(t *testing.T) {
	f := follower(t, rising)
	f.config.Store.Update(mesh.Delta{Upserts: []mesh.Object{service("east", "a"), service("west", "a"), &mesh.Cluster{ID: "east"}}})
	if err := f.Apply(adsclient.Update{Removed: []string{"service/shop/a/east", "service/shop/a/west", "cluster/east", "federation/east.test"}}); err != nil {
		t.Fatal(err)
	}
	if f.get("service/shop/a/east") == nil || f.get("cluster/east") == nil || f.get("service/shop/a/west") != nil {
		t.Error("a controller removed what is the own cluster's, or not what is another's")
	}
}

func TestT4BundleWithoutContinuityIsRefused(t *testing.T) {
	f := follower(t, rising)
	if err := f.Apply(update(federation(5, "good"))); err != nil {
		t.Fatal(err)
	}
	key := federation(0, "").Key()
	if err := f.Apply(update(federation(5, "evil"), service("west", "a"))); err == nil {
		t.Error("accepted")
	}
	if got := f.get(key).(*mesh.Federation); string(got.Bundle) != "good" || f.get("service/shop/a/west") == nil {
		t.Errorf("held is %q", got.Bundle)
	}
	// Removing the domain first is no way around.
	if err := f.Apply(adsclient.Update{Removed: []string{string(key)}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(update(federation(4, "evil"))); err == nil || f.get(key) != nil {
		t.Error("accepted after a removal")
	}
	if err := f.Apply(update(federation(6, "next"))); err != nil || f.get(key) == nil {
		t.Errorf("the continuous one: %v", err)
	}
}

// A restart in between is no way around either.
func TestT4RemovedDomainIsKnownAfterARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "anchors")
	start := func() *Follower {
		t.Helper()
		f := follower(t, rising)
		anchors, err := openAnchors(path, nil)
		if err != nil {
			t.Fatal(err)
		}
		f.anchors = anchors
		return f
	}
	key := federation(0, "").Key()
	f := start()
	if err := f.Apply(update(federation(5, "good"))); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(adsclient.Update{Removed: []string{string(key)}}); err != nil {
		t.Fatal(err)
	}
	f = start()
	if err := f.Apply(update(federation(4, "evil"))); err == nil || f.get(key) != nil {
		t.Error("accepted after a removal and a restart")
	}
	if err := f.Apply(update(federation(6, "next"))); err != nil || f.get(key) == nil {
		t.Errorf("the continuous one: %v", err)
	}
	if again := start(); len(again.anchors.held) != 0 {
		t.Error("kept as removed though it came back")
	}
	if err := f.Apply(adsclient.Update{Removed: []string{string(key)}}); err != nil {
		t.Fatal(err)
	}
	if forgot, err := openAnchors(path, []spiffeid.TrustDomain{federation(0, "").TrustDomain}); err != nil || len(forgot.held) != 0 {
		t.Errorf("not forgotten: %v", err)
	}
	if again := start(); len(again.anchors.held) != 0 {
		t.Error("forgotten until the next restart only")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openAnchors(path, nil); err == nil {
		t.Error("a damaged file was taken for an empty one")
	}
}

func TestFromDiskIsHeld(t *testing.T) {
	f := follower(t, func(held, _ *mesh.Federation) error {
		if held == nil {
			return errors.New("signature expired")
		}
		return nil
	})
	u := update(federation(5, "good"))
	u.FromDisk = true
	if err := f.Apply(u); err != nil {
		t.Fatal(err)
	}
	if err := f.Apply(update(federation(6, "next"))); err != nil {
		t.Errorf("what came from disk is no anchor: %v", err)
	}
}

// large is an update that fills a response; objects with many labels are no rarity in a large mesh.
func large() adsclient.Update {
	var all []mesh.Object
	for i := range 6000 {
		all = append(all, service("west", fmt.Sprintf("a-service-with-quite-a-long-name-%05d", i)))
	}
	return update(all...)
}

func (f *Follower) isSynced() bool {
	select {
	case <-f.Synced():
		return true
	default:
		return false
	}
}

// A part of what there is must not be taken for all of it: proxies would be told that the rest is gone.
func TestPartIsNotAll(t *testing.T) {
	f := follower(t, rising)
	if err := f.Apply(large()); err != nil {
		t.Fatal(err)
	}
	if f.isSynced() {
		t.Error("synced after a response that was cut")
	}
	if err := f.Apply(update(service("west", "last"))); err != nil {
		t.Fatal(err)
	}
	if !f.isSynced() {
		t.Error("not synced after the last response")
	}
}

func TestQuietControllerHasSaidAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := follower(t, rising)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.settle(ctx)
		f.client.Set(adsclient.Status{Target: "controller", Since: time.Now()})
		time.Sleep(time.Hour)
		if f.isSynced() {
			t.Error("synced though the controller has said nothing yet")
		}
		if err := f.Apply(large()); err != nil {
			t.Fatal(err)
		}
		f.client.Set(adsclient.Status{Since: time.Now()})
		time.Sleep(time.Hour)
		if f.isSynced() {
			t.Error("synced though the controller went away in the middle")
		}
		f.client.Set(adsclient.Status{Target: "controller", Since: time.Now()})
		time.Sleep(quietAfter - time.Second)
		if f.isSynced() {
			t.Error("synced before the controller had the time to go on")
		}
		time.Sleep(2 * time.Second)
		if !f.isSynced() {
			t.Error("not synced though the controller has nothing to add")
		}
	})
}

func TestUnchangedIsNoCommit(t *testing.T) {
	f := follower(t, rising)
	if err := f.Apply(update(service("west", "a"))); err != nil {
		t.Fatal(err)
	}
	before, _ := f.config.Store.Latest()
	if err := f.Apply(update(service("west", "a"))); err != nil {
		t.Fatal(err)
	}
	if after, _ := f.config.Store.Latest(); after != before {
		t.Error("a commit without a change")
	}
}

func FuzzApply(f *testing.F) {
	f.Add("service/shop/a/west", meshpb.Marshal(service("west", "a")))
	f.Add("federation/west.test", meshpb.Marshal(federation(1, "x")))
	f.Fuzz(func(t *testing.T, name string, body []byte) {
		follower := follower(t, rising)
		_ = follower.Apply(adsclient.Update{Upserts: []adsclient.Item{{Name: name, Body: body}}, Removed: []string{name + "x"}})
		snapshot, _ := follower.config.Store.Latest()
		for key, object := range snapshot.All() {
			if follower.config.Owner.Owns(key) || object.Validate() != nil {
				t.Errorf("accepted %s", key)
			}
		}
	})
}
