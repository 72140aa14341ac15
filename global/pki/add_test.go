package pki

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAddMakesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	if err := Init(dir, "plane.test", []string{"g-1"}, []string{"alice"}); err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(filepath.Join(dir, "g-1", "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"g-2 bob", ""} { // the second time there is nothing to do
		added, err := Add(dir, "plane.test", []string{"g-1", "g-2"}, []string{"alice", "bob"})
		if err != nil || strings.Join(added, " ") != want {
			t.Errorf("added %v, want %q: %v", added, want, err)
		}
	}
	if now, err := os.ReadFile(filepath.Join(dir, "g-1", "ca.key")); err != nil || string(now) != string(old) {
		t.Errorf("the key of g-1 was replaced (%v)", err)
	}
	issuer, err := Load(filepath.Join(dir, "g-2"))
	if err != nil {
		t.Fatal(err)
	}
	if issuer.Replica() != "g-2" {
		t.Errorf("the keys are %q's", issuer.Replica())
	}
}

func TestAddRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := Init(dir, "plane.test", []string{"g-1"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(dir, "other.test", []string{"g-2"}, nil); err == nil || !strings.Contains(err.Error(), "plane.test") {
		t.Errorf("another trust domain: %v", err)
	}
	if _, err := Add(t.TempDir(), "", []string{"g-2"}, nil); err == nil {
		t.Error("a folder without a root")
	}
	if err := os.Remove(filepath.Join(dir, "root.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(dir, "", []string{"g-2"}, nil); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("without the root's key: %v", err)
	}
}
