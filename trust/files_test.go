package trust_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

// The files are what other programs read: a matching pair, the roots of each domain alone, all of them in the map, and
// nothing of a domain that is trusted no more.
func TestWriteFiles(t *testing.T) {
	own, other, gone := trusttest.NewCA("own.test"), trusttest.NewCA("other.test"), trusttest.NewCA("gone.test")
	dir := t.TempDir()
	for _, federated := range [][]*trusttest.CA{{other, gone}, {other}} {
		material := own.SVID("/ns/shop/sa/web", time.Hour, federated...)
		if err := trust.WriteFiles(dir, material, spiffeid.RequireTrustDomainFromString("gone.test")); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, trust.FileSVID), filepath.Join(dir, trust.FileKey)); err != nil {
			t.Error(err)
		}
		checkRoots(t, filepath.Join(dir, trust.FileBundle), own)
		checkRoots(t, filepath.Join(dir, "bundle.own.test.pem"), own)
		checkRoots(t, filepath.Join(dir, trust.FileControl), slices.Concat([]*trusttest.CA{own}, federated[1:])...)
		checkRoots(t, filepath.Join(dir, "bundle.other.test.pem"), other)
		checkBundleMap(t, filepath.Join(dir, trust.FileBundleMap), append(federated, own)...)
		checkPrivate(t, dir, 6+len(federated))
	}
}

func checkRoots(t *testing.T, path string, cas ...*trusttest.CA) {
	t.Helper()
	bundle, err := x509bundle.Load(spiffeid.RequireTrustDomainFromString("any.test"), path)
	if err != nil || len(bundle.X509Authorities()) != len(cas) {
		t.Fatalf("%s: %v, %v", path, bundle, err)
	}
	for _, ca := range cas {
		if !bundle.HasX509Authority(ca.Root()) {
			t.Errorf("%s lacks a root", path)
		}
	}
}

func checkBundleMap(t *testing.T, path string, cas ...*trusttest.CA) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Domains map[string]json.RawMessage `json:"trust_domains"`
	}
	if err := json.Unmarshal(data, &document); err != nil || len(document.Domains) != len(cas) {
		t.Fatalf("%v\n%s", err, data)
	}
	for name, body := range document.Domains {
		bundle, err := spiffebundle.Parse(spiffeid.RequireTrustDomainFromString(name), body)
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(cas, func(ca *trusttest.CA) bool { return bundle.HasX509Authority(ca.Root()) })
		if at < 0 || len(bundle.X509Authorities()) != 1 {
			t.Errorf("%s has %d roots, or another's", name, len(bundle.X509Authorities()))
		}
	}
}

func checkPrivate(t *testing.T, dir string, want int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != want {
		t.Errorf("%v, %v", entries, err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", entry.Name(), info.Mode(), err)
		}
	}
}

// A rotation reaches the files while the program runs, and nothing is left half written.
func TestKeepFiles(t *testing.T) {
	ca := trusttest.NewCA("own.test")
	source := watch.New(ca.SVID("/ns/shop/sa/web", time.Hour))
	ctx, stop := context.WithCancel(t.Context())
	dir, written, ended := t.TempDir(), make(chan *trust.Material), make(chan error)
	go func() {
		ended <- trust.KeepFiles(ctx, dir, source, spiffeid.TrustDomain{}, func(m *trust.Material) { written <- m })
	}()
	<-written
	before, err := os.ReadFile(filepath.Join(dir, trust.FileSVID))
	source.Set(ca.SVID("/ns/shop/sa/web", time.Hour))
	<-written
	after, err2 := os.ReadFile(filepath.Join(dir, trust.FileSVID))
	if err = errors.Join(err, err2); err != nil || string(before) == string(after) {
		t.Errorf("not rotated (%v)", err)
	}
	checkPrivate(t, dir, 6)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := trust.WriteFiles(filepath.Join(dir, "absent"), ca.SVID("/a", time.Hour), spiffeid.TrustDomain{}); err == nil {
		t.Error("wrote into a folder that is not there")
	}
}
