package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/trust/spire"
)

// output collects what a process prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// spawn runs the binary under a path of its own until the test ends.
func spawn(t *testing.T, path string, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if err := os.Link(running.binary, path); err != nil {
			t.Fatal(err)
		}
	}
	command, out := exec.Command(path, args...), new(output)
	command.Stdout, command.Stderr = out, out
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is killed takes it along
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { command.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			command.Process.Kill()
			t.Errorf("%v did not end when it was told to", args)
		}
		if t.Failed() {
			text := out.String()
			t.Logf("%s:\n%s", args[0], text[max(0, len(text)-3000):])
		}
	})
	return command, out
}

// A cluster joins as the documentation says: register, authority, agent, gateway, sidecar, each a command by hand; its
// service is reached from another region; its token works once.
func TestJoiningAClusterByHand(t *testing.T) {
	dir, err := os.MkdirTemp("", "lab") // a short path: sockets live below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	at := func(name string) string { return filepath.Join(dir, name) }
	t.Cleanup(func() { run(t, "cluster", "remove", "lab", "--force") })
	if out, stderr, code := run(t, "cluster", "register", "lab", "--region", "lab-region", "--network", "lab="+prefix+".77.0/24", "--trust-domain", "lab.mesh", "--token-file", at("token")); code != 0 {
		t.Fatal(out, stderr)
	}
	workload, server := "unix://"+at("w.sock"), "unix://"+at("s.sock")
	spawn(t, at("authority"), "authority", "--trust-domain", "lab.mesh", "--data-dir", at("a"), "--workload-socket", workload, "--server-socket", server, "--svid-ttl", "1m")
	entries(t, server, map[string]string{at("agent"): "/periplus/agent", at("gateway"): "/periplus/gateway", at("sidecar"): "/ns/shop/sa/lab"})

	agent := []string{
		"agent", "--join-token-file", at("token"), "--address", prefix + ".77.2:15012", "--admin-address", prefix + ".77.2:15014",
		"--workload-socket", workload, "--server-socket", server, "--services", at("services.yaml"),
	}
	services := "apiVersion: periplus.io/v1\nkind: Service\nmetadata: {name: lab, namespace: shop}\nspec: {exported: true, ports: [{name: http, port: 80, protocol: http}]}\n"
	if err := os.WriteFile(at("services.yaml"), []byte(services), 0o600); err != nil {
		t.Fatal(err)
	}
	spawn(t, at("agent"), append(agent, "--data-dir", at("d"))...)
	within(t, 20*time.Second, "the agent is ready", func() error { return get("http://" + prefix + ".77.2:15014/ready") })
	within(t, 10*time.Second, "the cluster is connected", func() error {
		if out, _, _ := run(t, "cluster", "describe", "lab"); !strings.Contains(out, "Connected") {
			return fmt.Errorf("%s", out)
		}
		return nil
	})

	plane := []string{
		"--cluster", "lab", "--network", "lab", "--region", "lab-region", "--zone", "lab-a", "--workload-socket", workload, "--agent", prefix + ".77.2:15012",
		"--control-plane", "periplus.global", "--controller", prefix + ".1.1:15012",
	}
	spawn(t, at("shop"), "demo", "shop", "--cluster", "lab", "--region", "lab-region", "--zone", "lab-a", "--service", "lab="+prefix+".77.101:8080")
	spawn(t, at("gateway"), append([]string{"eastwest", "--name", "gateway-lab", "--bind", prefix + ".77.11", "--admin-address", prefix + ".77.11:15014", "--drain-time", "2s"}, plane...)...)
	spawn(t, at("sidecar"), append([]string{
		"proxy", "--name", "lab-a", "--service", "lab.shop", "--bind", prefix + ".77.21", "--admin-address", prefix + ".77.21:15014", "--drain-time", "2s",
		"--inbound", "http:80:http:15006=" + prefix + ".77.101:8080",
	}, plane...)...)
	within(t, 30*time.Second, "another region reaches the new service", func() error {
		status, body, _ := ask(t, running.outbound(visitorA), "lab.shop", "/", nil)
		if status != 200 || !strings.Contains(body, `"region":"lab-region"`) || !strings.Contains(body, "spiffe://eu-west.mesh/ns/shop/sa/visitor") {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
	refusedTokens(t, dir, agent, at)
}

// refusedTokens starts agents whose tokens must not work; each says why.
func refusedTokens(t *testing.T, dir string, agent []string, at func(string) string) {
	token, err := os.ReadFile(at("token"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ token, says string }{
		"used":      {string(token), "used"},
		"garbage":   {"periplus-join-v1.aGVsbG8", "token"},
		"truncated": {string(token[:len(token)/2]), "token"},
	} {
		file := filepath.Join(dir, name+".token")
		if err := os.WriteFile(file, []byte(c.token), 0o600); err != nil {
			t.Fatal(err)
		}
		args := append([]string{}, agent...)
		args = append(args, "--data-dir", filepath.Join(dir, name), "--address", prefix+".77.9:15012", "--admin-address", prefix+".77.9:15014")
		args[2] = file
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		output, err := exec.CommandContext(ctx, at("agent"), args...).CombinedOutput()
		late := ctx.Err() != nil
		cancel()
		if err == nil || late || !strings.Contains(string(output), c.says) {
			t.Errorf("token %s: %v: it does not say %q:\n%s", name, err, c.says, output)
		}
	}
}

func entries(t *testing.T, server string, ids map[string]string) {
	t.Helper()
	domain := spiffeid.RequireTrustDomainFromString("lab.mesh")
	parent := spiffeid.RequireFromPath(domain, "/spire/agent/lab")
	var all []spire.Entry
	for path, id := range ids {
		all = append(all, spire.Entry{ID: spiffeid.RequireFromPath(domain, id), ParentID: parent, Selectors: []string{"unix:path:" + path}})
	}
	client, err := spire.Dial(server)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	within(t, 10*time.Second, "entries", func() error { return client.EnsureEntries(t.Context(), all) })
}
