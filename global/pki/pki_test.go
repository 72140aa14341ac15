package pki

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func initialised(t *testing.T) (string, *Issuer) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := Init(dir, "periplus.global", []string{"eu", "us"}, []string{"ada"}); err != nil {
		t.Fatal(err)
	}
	issuer, err := Load(filepath.Join(dir, "eu"))
	if err != nil {
		t.Fatal(err)
	}
	return dir, issuer
}

func parse(t *testing.T, chain [][]byte) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for _, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, cert)
	}
	return out
}

func TestEverythingVerifiesAgainstTheRootAlone(t *testing.T) {
	dir, eu := initialised(t)
	us, err := Load(filepath.Join(dir, "us"))
	if err != nil {
		t.Fatal(err)
	}
	self, err := us.IssueSelf()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := newKey()
	agent, err := us.IssueAgent(key.Public(), "west", 7)
	if err != nil {
		t.Fatal(err)
	}
	operator, err := readCertificates(filepath.Join(dir, "operators", "ada.crt"))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := eu.IssueSelf()
	if err != nil {
		t.Fatal(err)
	}
	for want, chain := range map[string][]*x509.Certificate{
		"spiffe://periplus.global/controller/us": parse(t, self.Certificate.Certificate),
		"spiffe://periplus.global/agent/west":    parse(t, agent),
		"spiffe://periplus.global/operator/ada":  operator,
	} {
		id, err := verifier.Verify(chain)
		if err != nil || id.String() != want {
			t.Errorf("want %s, got %s, %v", want, id, err)
		}
	}
	if generation, err := AgentGeneration(parse(t, agent)[0]); err != nil || generation != 7 {
		t.Errorf("generation %d, %v", generation, err)
	}
}

func TestForeignPlaneIsRefused(t *testing.T) {
	_, ours := initialised(t)
	_, theirs := initialised(t) // the same trust domain name, another root
	verifier, err := ours.IssueSelf()
	if err != nil {
		t.Fatal(err)
	}
	self, err := theirs.IssueSelf()
	if err != nil {
		t.Fatal(err)
	}
	if id, err := verifier.Verify(parse(t, self.Certificate.Certificate)); err == nil {
		t.Fatalf("accepted %s", id)
	}
}

func TestFiles(t *testing.T) {
	dir, _ := initialised(t)
	for _, name := range []string{"root.key", "eu/ca.key", "operators/ada.key"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if err := Init(dir, "other", nil, nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second Init: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(filepath.Join(dir, "eu")); err != nil {
		t.Errorf("without the root's key: %v", err)
	}
	if err := AddReplica(dir, "ap"); err == nil {
		t.Error("a replica was added without the root's key")
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, spoil := range map[string]func(eu, us string) error{
		"missing":      func(eu, us string) error { return os.RemoveAll(eu) },
		"foreign key":  func(eu, us string) error { return os.Rename(us+"/ca.key", eu+"/ca.key") },
		"open key":     func(eu, us string) error { return os.Chmod(eu+"/ca.key", 0o644) },
		"garbage cert": func(eu, us string) error { return os.WriteFile(eu+"/ca.crt", []byte("?"), 0o600) },
		"garbage key":  func(eu, us string) error { return os.WriteFile(eu+"/ca.key", []byte("?"), 0o600) },
		"leaf":         func(eu, us string) error { return os.Rename(eu+"/root.crt", eu+"/ca.crt") },
	} {
		dir, _ := initialised(t)
		eu, us := filepath.Join(dir, "eu"), filepath.Join(dir, "us")
		if err := spoil(eu, us); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(eu); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

func TestBadNames(t *testing.T) {
	dir, _ := initialised(t)
	for _, id := range []string{"", "operators", "../x", "Upper"} {
		if err := AddReplica(dir, id); err == nil {
			t.Errorf("replica %q accepted", id)
		}
	}
	if err := AddOperator(dir, "a/b"); err == nil {
		t.Error("operator a/b accepted")
	}
	if err := Init(t.TempDir(), "Not A Domain", nil, nil); err == nil {
		t.Error("trust domain accepted")
	}
}

func TestSourceRenewsItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	synctest.Test(t, func(t *testing.T) {
		if err := Init(dir, "periplus.global", []string{"eu"}, nil); err != nil {
			t.Fatal(err)
		}
		issuer, err := Load(filepath.Join(dir, "eu"))
		if err != nil {
			t.Fatal(err)
		}
		source, err := issuer.Source()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go source.Run(ctx)
		old, next := source.Get()
		<-next
		now, _ := source.Get()
		if left := time.Until(old.Certificate.Leaf.NotAfter); left < SelfTTL/3 {
			t.Errorf("renewed only %v before the end", left)
		}
		if now.Certificate.Leaf.Equal(old.Certificate.Leaf) {
			t.Error("the same SVID")
		}
		cancel()
		synctest.Wait()
	})
}

// Clients that verify host names, such as gRPC's, find the advertised host; what is no host is left out.
func TestHostsOfAReplica(t *testing.T) {
	_, eu := initialised(t)
	source, err := eu.Source("EU.control.example", "192.0.2.7", "2001:db8::7", "", "0.0.0.0", "not a name", strings.Repeat("a.", 200)+"a")
	if err != nil {
		t.Fatal(err)
	}
	material, _ := source.Get()
	leaf := material.Certificate.Leaf
	for _, host := range []string{"eu.control.example", "192.0.2.7", "2001:db8::7"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if len(leaf.DNSNames) != 1 || len(leaf.IPAddresses) != 2 {
		t.Errorf("names %q, addresses %v", leaf.DNSNames, leaf.IPAddresses)
	}
	if id, err := material.Verify(parse(t, material.Certificate.Certificate)); err != nil || id != material.ID {
		t.Errorf("%q, %v", id, err)
	}
}
