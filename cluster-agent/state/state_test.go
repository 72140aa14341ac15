package state

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

var owner = own.Owner{Cluster: "east", Domain: spiffeid.RequireTrustDomainFromString("east.test")}

func service(name string) mesh.Object {
	return &mesh.Service{Name: mesh.ServiceName{Namespace: "shop", Name: name}, Cluster: "east", Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}}}
}

func content() Content {
	return Content{Owner: owner, MadeAt: time.UnixMilli(1_700_000_000_000), Objects: map[own.Source][]mesh.Object{
		own.File: {service("a"), service("b")}, own.Workloads: {service("c")},
	}}
}

func TestRoundTrip(t *testing.T) {
	got, err := Decode(Encode(content()), owner)
	if err != nil || len(got.Objects[own.File]) != 2 || len(got.Objects[own.Workloads]) != 1 || !got.MadeAt.Equal(content().MadeAt) {
		t.Errorf("%+v %v", got, err)
	}
}

// Every damaged byte and every shorter file is noticed.
func TestDamageIsNoticed(t *testing.T) {
	data := Encode(content())
	for i := range data {
		damaged := append([]byte(nil), data...)
		damaged[i] ^= 0x40
		if _, err := Decode(damaged, owner); err == nil {
			t.Fatalf("byte %d flipped, accepted", i)
		}
		if _, err := Decode(data[:i], owner); err == nil {
			t.Fatalf("cut at %d, accepted", i)
		}
	}
	if _, err := Decode(data, own.Owner{Cluster: "west", Domain: owner.Domain}); err == nil {
		t.Error("another cluster's state accepted")
	}
	foreign := content()
	foreign.Objects[own.File] = append(foreign.Objects[own.File], &mesh.Service{Name: mesh.ServiceName{Namespace: "s", Name: "a"}, Cluster: "west", Ports: service("a").(*mesh.Service).Ports})
	if _, err := Decode(Encode(foreign), owner); err == nil {
		t.Error("another cluster's object accepted")
	}
}

func keeper(t *testing.T, dir string) *Keeper {
	store := new(mesh.Store)
	k, err := New(Config{DataDir: dir, Store: store, Table: own.New(store, owner), Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	k.last = mesh.Empty
	return k
}

func put(k *Keeper, name string) {
	k.config.Table.Apply(own.File, mesh.Delta{Upserts: []mesh.Object{service(name)}})
	snapshot, _ := k.config.Store.Latest()
	k.save(snapshot)
}

func TestTwoGenerations(t *testing.T) {
	dir := t.TempDir()
	if _, ok := keeper(t, dir).Load(); ok {
		t.Fatal("loaded from an empty folder")
	}
	k := keeper(t, dir)
	put(k, "a")
	put(k, "b")
	load := func(want int) {
		t.Helper()
		c, ok := keeper(t, dir).Load()
		if ok != (want > 0) || len(c.Objects[own.File]) != want {
			t.Errorf("loaded %v, %d objects, want %d", ok, len(c.Objects[own.File]), want)
		}
	}
	load(2)
	newest := filepath.Join(dir, newestName)
	if info, err := os.Stat(newest); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if err := os.WriteFile(newest, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	load(1)
	os.Remove(newest)
	load(1)
	if err := os.Symlink(filepath.Join(dir, olderName), newest); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(newest); err == nil {
		t.Error("followed a symbolic link")
	}
}

// A newest generation that is damaged does not take the place of the older one, which is good.
func TestDamagedIsNotKept(t *testing.T) {
	dir := t.TempDir()
	k := keeper(t, dir)
	put(k, "a")
	put(k, "b")
	damage := func() {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, newestName), []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	damage()
	k = keeper(t, dir)
	if c, ok := k.Load(); !ok || len(c.Objects[own.File]) != 1 {
		t.Fatalf("%v, %+v", ok, c)
	}
	put(k, "c")
	damage()
	if c, ok := keeper(t, dir).Load(); !ok || len(c.Objects[own.File]) != 1 {
		t.Errorf("no generation is left: %v, %+v", ok, c)
	}
}

// What a full disk refused is written when there is room, though nothing changed since.
func TestRefusedIsWrittenLater(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	synctest.Test(t, func(t *testing.T) {
		k := keeper(t, dir)
		put(k, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(time.Hour)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * longestPause)
		if c, ok := keeper(t, dir).Load(); !ok || len(c.Objects[own.File]) != 1 {
			t.Errorf("%v, %+v", ok, c)
		}
		cancel()
		<-done
	})
}

func TestForeignChangesAreNotWritten(t *testing.T) {
	k := keeper(t, t.TempDir())
	put(k, "a")
	saved := k.Status().Saved
	k.config.Store.Update(mesh.Delta{Upserts: []mesh.Object{&mesh.Service{Name: mesh.ServiceName{Namespace: "s", Name: "x"}, Cluster: "west"}}})
	snapshot, _ := k.config.Store.Latest()
	k.save(snapshot)
	if k.Status().Saved != saved {
		t.Error("wrote though the own cluster did not change")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(content()))
	f.Add(Encode(Content{Owner: owner}))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data, owner)
		if err != nil {
			return
		}
		for _, objects := range c.Objects {
			for _, o := range objects {
				if !owner.Owns(o.Key()) || o.Validate() != nil {
					t.Errorf("accepted %s", o.Key())
				}
			}
		}
	})
}

// FuzzObjects gets past the checksum.
func FuzzObjects(f *testing.F) {
	f.Add([]byte{0, 3, 1, 2, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Content{Owner: owner, Objects: map[own.Source][]mesh.Object{}}
		_ = c.objects(data)
	})
}
