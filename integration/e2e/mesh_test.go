package e2e

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

// prefix keeps the test's mesh apart from one that somebody runs for himself, and from another run of the tests.
var prefix = cmp.Or(os.Getenv("PERIPLUS_E2E_PREFIX"), "127.31")

// running is the mesh that all tests share.
var running *mesh

type mesh struct {
	dir, binary string
	plan        *up.Plan
	control     *up.Control
	client      *cli.Client
}

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("end-to-end tests are skipped with -short")
		os.Exit(0)
	}
	code, err := runWithMesh(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runWithMesh(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "periplus")
	if err := install(binary); err != nil {
		return 1, err
	}
	release, err := guard(binary, filepath.Join(dir, "mesh"), dir)
	if err != nil {
		return 1, err
	}
	defer release()
	if running, err = start(filepath.Join(dir, "mesh"), binary); err != nil {
		return 1, err
	}
	defer func() {
		if code != 0 {
			running.showLogs(os.Stderr)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if down := running.control.Down(ctx); down != nil {
			err = errors.Join(err, down)
		}
		err = errors.Join(err, leftovers(dir))
	}()
	return m.Run(), nil
}

// guard ends the mesh that a folder may have, and removes root, once this process is gone, however it ends: a panic, a
// timeout of the tests or a kill runs no deferred function. release does it now.
func guard(binary, mesh, root string) (release func(), err error) {
	// It lives in a session of its own, so that Ctrl-C does not reach it, and reads until its input has no writer left.
	command := exec.Command("sh", "-c", `cat; "$0" down --dir "$1"; rm -rf "$2"`, binary, mesh, root)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	return func() { input.Close(); command.Wait() }, command.Start()
}

// install builds the binary, or takes the one of PERIPLUS_E2E_BINARY.
func install(binary string) error {
	if built := os.Getenv("PERIPLUS_E2E_BINARY"); built != "" {
		return up.CopyFile(built, binary)
	}
	if output, err := exec.Command("go", "build", "-o", binary, "../../cmd/periplus").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, output)
	}
	return nil
}

func start(dir, binary string) (*mesh, error) {
	os.Setenv(cli.EnvConfig, filepath.Join(dir, "contexts"))
	began := time.Now()
	// The workloads' certificates live a minute, so that they rotate under every test.
	output, err := exec.Command(binary, "up", "--detach", "--dir", dir, "--prefix", prefix, "--rate", "2", "--svid-ttl", "1m").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("up: %w\n%s", err, output)
	}
	took := time.Since(began)
	fmt.Printf("the mesh was ready after %.1f s\n", took.Seconds())
	if took > time.Minute {
		return nil, fmt.Errorf("up took %v, want at most a minute", took)
	}
	plan, err := up.NewPlan(up.Options{Dir: dir, Prefix: prefix, Executable: binary})
	if err != nil {
		return nil, err
	}
	control, err := up.NewControl(dir)
	if err != nil {
		return nil, err
	}
	client, err := plan.OperatorContext().Connect()
	return &mesh{dir, binary, plan, control, client}, err
}

// leftovers names processes that still run from the mesh's folder.
func leftovers(dir string) error {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return err
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir) {
			return fmt.Errorf("%s still runs (%s)", target, link)
		}
	}
	return nil
}

func (m *mesh) showLogs(w io.Writer) {
	report, err := m.control.Report(context.Background())
	if err != nil {
		return
	}
	for _, p := range report.Processes {
		data, err := os.ReadFile(p.Log)
		if err != nil {
			continue
		}
		if len(data) > 3000 {
			data = data[len(data)-3000:]
		}
		fmt.Fprintf(w, "==== %s (%s)\n%s\n", p.Name, p.State, data)
	}
}

// act does kill, stop, start, pause or resume to processes, and starts again at the end of the test what it ended.
func (m *mesh) act(t *testing.T, action string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := m.control.Act(t.Context(), action, name); err != nil {
			t.Fatalf("%s %s: %v", action, name, err)
		}
		if action == "kill" || action == "stop" {
			t.Cleanup(func() { m.restore(t, name) })
		}
	}
}

// restore starts a process if it is down and waits until it is ready and its neighbours know.
func (m *mesh) restore(t *testing.T, name string) {
	t.Helper()
	if err := m.control.Act(context.Background(), "start", name); err != nil {
		t.Errorf("start %s: %v", name, err)
		return
	}
	for _, p := range m.plan.Processes {
		if p.Name == name && p.Ready != "" {
			within(t, 20*time.Second, name+" is ready", func() error { return get(p.Ready) })
		}
	}
}

// pages asks processes for pages that they always answer at once.
var pages = http.Client{Timeout: 5 * time.Second}

func get(url string) error {
	response, err := pages.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", url, response.StatusCode)
	}
	return nil
}

func read(t *testing.T, url string) string {
	t.Helper()
	response, err := pages.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// within tries until it works, and fails the test if that took longer than the limit. It returns how long it took.
func within(t *testing.T, limit time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	return withinOf(t, time.Now(), limit, what, try)
}

// withinOf is within, from a time on that has passed already.
func withinOf(t *testing.T, began time.Time, limit time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	for {
		err := try()
		took := time.Since(began)
		if took > limit {
			t.Fatalf("%s: not within %v but %v: %v", what, limit, took, err)
		}
		if err == nil {
			return took
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// admin is a process's admin interface.
func (m *mesh) admin(name string) string {
	for _, p := range m.plan.Processes {
		if p.Name == name {
			return strings.TrimSuffix(p.Ready, "/ready")
		}
	}
	panic("no process " + name)
}

// host is the address of a proxy.
func (m *mesh) host(proxy string) string {
	host, _, _ := strings.Cut(strings.TrimPrefix(m.admin(proxy), "http://"), ":")
	return host
}

// outbound is host:port of a sidecar's outbound listener, inbound of the one that other sidecars reach.
func (m *mesh) outbound(sidecar string) string { return m.host(sidecar) + ":15001" }
func (m *mesh) inbound(sidecar string) string  { return m.host(sidecar) + ":15006" }

func (m *mesh) apply(t *testing.T, documents string) {
	t.Helper()
	within(t, 10*time.Second, "policy applied", func() error { return m.tryApply(t.Context(), documents) })
}

func (m *mesh) tryApply(ctx context.Context, documents string) error {
	_, err := m.client.Policies.ApplyPolicy(ctx, connect.NewRequest(&pb.ApplyPolicyRequest{Documents: []byte(documents), File: "test.yaml"}))
	return err
}

// withPolicy applies a policy for the length of the test.
func (m *mesh) withPolicy(t *testing.T, kind, name, spec string) {
	t.Helper()
	group := "networking.istio.io/v1"
	if kind == "AuthorizationPolicy" {
		group = "security.istio.io/v1"
	}
	m.apply(t, fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s, namespace: shop}\nspec:\n%s\n", group, kind, name, spec))
	t.Cleanup(func() {
		within(t, 10*time.Second, "policy deleted", func() error {
			_, err := m.client.Policies.DeletePolicy(context.Background(), connect.NewRequest(&pb.DeletePolicyRequest{Kind: kind, Namespace: "shop", Name: name}))
			if connect.CodeOf(err) == connect.CodeNotFound {
				return nil
			}
			return err
		})
	})
}

// withoutRetries switches retries of a service off for the length of the test.
func (m *mesh) withoutRetries(t *testing.T, service string) {
	m.withPolicy(t, "VirtualService", service+"-no-retries",
		fmt.Sprintf("  hosts: [%s]\n  http:\n  - route: [{destination: {host: %s}}]\n    retries: {attempts: 0}", service, service))
	m.settle()
}

// settle gives a change the time to reach every sidecar; what it takes is measured elsewhere.
func (m *mesh) settle() { time.Sleep(time.Second) }

func (m *mesh) leader(ctx context.Context) (string, error) {
	response, err := m.client.Mesh.ListMembers(ctx, connect.NewRequest(&pb.ListMembersRequest{}))
	if err != nil {
		return "", err
	}
	for _, member := range response.Msg.GetItems() {
		if member.GetRole() == "leader" {
			return member.GetId(), nil
		}
	}
	return "", errors.New("no leader")
}
