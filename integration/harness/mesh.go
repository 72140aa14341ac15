package harness

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/cli"
)

// Plane is the trust domain of the controllers.
const Plane = "periplus.global"

// EnvBinaries names a folder with binaries that are built already.
const EnvBinaries = "PERIPLUS_BIN"

// Options of a mesh.
type Options struct {
	// Prefix is the first two numbers of every address, such as 127.41; each test package has its own.
	Prefix      string
	Controllers int // 0: 1
}

// Mesh is a control plane, and what is started beside it.
type Mesh struct {
	Options
	// Dir has everything that the mesh keeps on disk.
	Dir string
	// Client is the admin API, as an operator.
	Client      *cli.Client
	Controllers []*realdeps.Process
	// MetricsURLs are of every process that was started.
	MetricsURLs []string
	t           testing.TB
	clusters    int
}

// New starts the controllers and waits until they serve.
func New(t testing.TB, o Options) *Mesh {
	t.Helper()
	if o.Controllers == 0 {
		o.Controllers = 1
	}
	dir, err := os.MkdirTemp("/tmp", "hm") // short: paths of Unix sockets have at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &Mesh{Options: o, Dir: dir, t: t}
	var names []string
	for i := range o.Controllers {
		names = append(names, controllerName(i))
	}
	if err := pki.Init(m.path("pki"), Plane, names, []string{"test"}); err != nil {
		t.Fatal(err)
	}
	for i := range o.Controllers {
		m.startController(i)
	}
	operator := cli.Context{
		TrustDomain: Plane, Certificate: m.path("pki/operators/test.crt"), Key: m.path("pki/operators/test.key"), Authority: m.path("pki/root.crt"),
	}
	for i := range o.Controllers {
		operator.Servers = append(operator.Servers, m.controllerHost(i)+":15014")
	}
	config := &cli.Config{APIVersion: "periplus.io/v1", Kind: "Config"}
	config.Set("test", operator, true)
	if err := config.Save(m.path("contexts")); err != nil {
		t.Fatal(err)
	}
	if m.Client, err = operator.Connect(); err != nil {
		t.Fatal(err)
	}
	for i, c := range m.Controllers {
		c.Await(30*time.Second, realdeps.Answers(http.DefaultClient, "http://"+m.controllerHost(i)+":8080/ready"))
	}
	return m
}

func (m *Mesh) path(parts ...string) string {
	return filepath.Join(append([]string{m.Dir}, parts...)...)
}

func controllerName(i int) string { return fmt.Sprintf("controller-%d", i+1) }

func (m *Mesh) controllerHost(i int) string { return fmt.Sprintf("%s.250.%d", m.Prefix, i+1) }

// ControllerAddress is where agents, proxies and replicas reach a controller.
func (m *Mesh) ControllerAddress(i int) string { return m.controllerHost(i) + ":15012" }

func (m *Mesh) startController(i int) {
	host := m.controllerHost(i)
	args := []string{
		"global", "run", "--id", controllerName(i), "--region", fmt.Sprintf("region-%d", i+1), "--bootstrap",
		"--data-dir", m.path("global", controllerName(i)), "--pki", m.path("pki", controllerName(i)), "--mesh-address", host + ":15012",
		"--raft-address", host + ":15013", "--admin-address", host + ":15014", "--dashboard-address", host + ":8080",
	}
	for j := range m.Options.Controllers {
		peer := m.controllerHost(j)
		args = append(args, "--peer", fmt.Sprintf("%s=%s:15013=%s:15012", controllerName(j), peer, peer))
	}
	m.Controllers = append(m.Controllers, realdeps.Run(m.t, controllerName(i), m.Program("periplus"), nil, args...))
	m.MetricsURLs = append(m.MetricsURLs, "http://"+host+":8080/metrics")
}

// TryPeriplus runs the command as an operator.
func (m *Mesh) TryPeriplus(stdin string, args ...string) (stdout, stderr string, err error) {
	m.t.Helper()
	command := exec.Command(m.Program("periplus"), args...)
	command.Env = append(os.Environ(), cli.EnvConfig+"="+m.path("contexts"))
	command.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err = command.Run()
	return out.String(), problems.String(), err
}

// Periplus is TryPeriplus for what must work; it returns what was written to standard output.
func (m *Mesh) Periplus(args ...string) string {
	m.t.Helper()
	out, problems, err := m.TryPeriplus("", args...)
	if err != nil {
		m.t.Fatalf("periplus %s: %v\n%s%s", strings.Join(args, " "), err, out, problems)
	}
	return out
}

// Apply applies a policy document.
func (m *Mesh) Apply(document string) {
	m.t.Helper()
	out, problems, err := m.TryPeriplus(document, "policy", "apply", "-f", "-")
	if err != nil {
		m.t.Fatalf("policy apply: %v\n%s%s", err, out, problems)
	}
}

var building sync.Mutex

// Program is the path of one of the repository's commands, built on first use.
func (m *Mesh) Program(name string) string {
	m.t.Helper()
	if dir := os.Getenv(EnvBinaries); dir != "" {
		return filepath.Join(dir, name)
	}
	building.Lock()
	defer building.Unlock()
	path := m.path("bin", name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	root, err := realdeps.Root()
	if err != nil {
		m.t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", path, "./cmd/"+name)
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		m.t.Fatalf("build %s: %v\n%s", name, err, output)
	}
	return path
}
