package periplus

import (
	"go/build"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/periplus-mesh/periplus"

// topLevel is what may stand at the root.
var topLevel = []string{"api", "cluster-agent", "cmd", "deploy", "docs", "eastwest", "global", "integration", "internal", "proxy", "trust"}

// rule forbids imports to the packages below in, but for those below except.
type rule struct {
	in      []string // folders; "" is everything
	except  []string
	imports []string // prefixes of import paths
	why     string
}

var rules = []rule{
	{
		in:      []string{"internal/mesh", "internal/pmap", "internal/watch", "internal/balance", "internal/sni"},
		imports: []string{"google.golang.org/", "github.com/envoyproxy/", "github.com/prometheus/", "log/slog", module + "/api"},
		why:     "the core outlives transports",
	},
	{
		in:      []string{"internal/mesh", "internal/translate", "internal/xds", "internal/feed"},
		imports: []string{"math/rand", "net/http", "google.golang.org/grpc", "log/slog", "github.com/prometheus/", "os"},
		why:     "pure: equal input gives equal output on every replica",
	},
	{
		except:  []string{"cluster-agent/kube", "integration"},
		imports: []string{"k8s.io/"},
		why:     "a cold build with client-go takes minutes; all else must build and test in seconds",
	},
	{except: []string{"global/replica"}, imports: []string{"github.com/hashicorp/"}, why: "the raft engine is replaceable"},
	{
		except:  []string{"trust"},
		imports: []string{"github.com/spiffe/spire-api-sdk", "github.com/spiffe/go-spiffe/v2/workloadapi", "github.com/spiffe/go-spiffe/v2/bundle", "github.com/spiffe/go-spiffe/v2/svid"},
		why:     "SPIRE and its API are known to trust alone",
	},
	{
		in:      []string{"proxy", "eastwest"},
		imports: []string{module + "/internal/mesh", module + "/internal/translate", module + "/global", module + "/cluster-agent"},
		why:     "the data plane knows only xDS",
	},
	{in: []string{"global"}, imports: []string{module + "/cluster-agent"}, why: "they meet in api and xds"},
	{in: []string{"cluster-agent"}, imports: []string{module + "/global"}, why: "they meet in api and xds"},
	{
		in:      []string{"internal", "trust", "proxy", "eastwest", "global", "cluster-agent"},
		except:  []string{"internal/up"},
		imports: []string{module + "/cmd", module + "/integration"},
		why:     "commands and tests are at the top",
	},
	{in: []string{"internal"}, except: []string{"internal/up"}, imports: []string{module + "/global", module + "/cluster-agent", module + "/proxy", module + "/eastwest"}, why: "the parts use internal, not the other way"},
}

// packages are the folders with Go files, and what each imports outside its tests.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name := entry.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || isModule(path)) {
			return filepath.SkipDir
		}
		p, err := build.ImportDir(path, 0)
		if _, none := err.(*build.NoGoError); none {
			return nil
		}
		if err != nil {
			return err
		}
		out[filepath.ToSlash(path)] = p.Imports
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// isModule tells whether a folder below the root is a module of its own.
func isModule(path string) bool {
	_, err := os.Stat(filepath.Join(path, "go.mod"))
	return err == nil
}

func below(path string, folders []string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return path == f || strings.HasPrefix(path, f+"/") })
}

func TestLayering(t *testing.T) {
	for path, imports := range packages(t) {
		for _, r := range rules {
			if len(r.in) > 0 && !below(path, r.in) || below(path, r.except) {
				continue
			}
			for _, i := range imports {
				if slices.ContainsFunc(r.imports, func(banned string) bool {
					return i == banned || strings.HasPrefix(i, strings.TrimSuffix(banned, "/")+"/")
				}) {
					t.Errorf("%s imports %s: %s", path, i, r.why)
				}
			}
		}
	}
}

func TestTopLevel(t *testing.T) {
	for path := range packages(t) {
		top, _, _ := strings.Cut(path, "/")
		if path != "." && !slices.Contains(topLevel, top) {
			t.Errorf("folder %s stands at the root; allowed are %v", top, topLevel)
		}
	}
}

// The data-plane binary stays lean: it links neither raft nor the control plane.
func TestLeanProxyBinary(t *testing.T) {
	lean(t, "cmd/periplus-proxy", "proxy", module+"/global", module+"/cluster-agent", module+"/internal/translate", "github.com/hashicorp/", "k8s.io/")
}

// The command that people type links no client-go: its build is the first thing that a new user waits for.
func TestLeanCommand(t *testing.T) {
	lean(t, "cmd/periplus", "cluster-agent", "k8s.io/")
}

// The agent for Kubernetes is an agent: no raft, no controller.
func TestLeanAgentBinary(t *testing.T) {
	lean(t, "cmd/periplus-agent", "cluster-agent/kube", module+"/global", "github.com/hashicorp/")
}

// lean tells what a command reaches that it shall not. It must reach uses, else the test looks at nothing.
func lean(t *testing.T, command, uses string, banned ...string) {
	t.Helper()
	seen := map[string]bool{}
	all := packages(t)
	var walk func(path string)
	walk = func(path string) {
		for _, i := range all[path] {
			for _, b := range banned {
				if strings.HasPrefix(i, b) {
					t.Errorf("%s reaches %s through %s", command, i, path)
				}
			}
			if own, ok := strings.CutPrefix(i, module+"/"); ok && !seen[own] {
				seen[own] = true
				walk(own)
			}
		}
	}
	walk(command)
	if !seen[uses] {
		t.Errorf("%s does not use %s: the test looks at nothing", command, uses)
	}
}
