package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// run runs the command as a person would, and returns what it printed and its exit code.
func run(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, err strings.Builder
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, running.binary, args...)
	command.Stdout, command.Stderr = &out, &err
	if e := command.Run(); e != nil && command.ProcessState == nil {
		t.Fatal(e)
	}
	return out.String(), err.String(), command.ProcessState.ExitCode()
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"cluster", "list"}, 0, []string{"NAME", "eu-west", "us-east", "ap-south", "Connected"}},
		{[]string{"cluster", "list", "-o", "wide"}, 0, []string{"TRUST-DOMAIN", "eu-west.mesh"}},
		{[]string{"cluster", "describe", "eu-west"}, 0, []string{"Trust domain:", "eu-west.mesh", prefix + ".1.0/24"}},
		{[]string{"cluster", "describe", "nowhere"}, 65, []string{"nowhere"}},
		{[]string{"services"}, 0, []string{"catalog.shop", "storefront.shop"}},
		{[]string{"global", "members"}, 0, []string{"controller-eu-west", "leader", "follower"}},
		{[]string{"trust", "status"}, 0, []string{"eu-west.mesh", "us-east.mesh"}},
		{[]string{"explain", "--from", "eu-west/eu-west-a", "catalog.shop"}, 0, []string{"Priority 0", "eu-west-a", "gateway"}},
		{[]string{"explain", "--from", "nowhere", "catalog.shop"}, 65, []string{"nowhere"}},
		{[]string{"cluster", "list", "-o", "xml"}, 64, []string{"xml"}},
		{[]string{"cluster", "register"}, 64, []string{"Usage"}},
		{[]string{"policy", "get", "virtualservice", "none", "-n", "shop"}, 65, []string{"not found"}},
		{[]string{"policy", "delete", "virtualservice/none", "-n", "shop"}, 65, []string{"shop/none"}},
		{[]string{"policy", "delete", "vs"}, 64, []string{"which VirtualService"}},
		{[]string{"proxy-status"}, 0, []string{"catalog-eu-west-a", "SYNCED", "controller-"}},
		{[]string{"nonsense"}, 64, []string{"unknown command"}},
		{[]string{"cluster", "list", "-o", "yaml"}, 0, []string{"kind: ClusterList", "eu-west.mesh"}},
		{[]string{"cluster", "remove", "eu-west"}, 65, []string{"eu-west", "agent is connected", "--force"}},
		{[]string{"__complete", "cluster", "describe", ""}, 0, []string{"eu-west", "us-east", "ap-south"}},
		{[]string{"__complete", "cluster", "drain", "us"}, 0, []string{"us-east"}},
		{[]string{"__complete", "up", "kill", "--dir", running.dir, "gateway-us"}, 0, []string{"gateway-us-east-a", "gateway-us-east-b"}},
		{[]string{"dashboard"}, 0, []string{"http://" + prefix + "."}},
		{[]string{"version"}, 0, []string{"periplus"}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			stdout, stderr, code := run(t, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d: %s%s", code, c.code, stdout, stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("%q is not in\n%s%s", want, stdout, stderr)
				}
			}
		})
	}
}

func TestListsAreAContract(t *testing.T) {
	stdout, _, _ := run(t, "cluster", "list", "-o", "json")
	var list struct {
		APIVersion string `json:"apiVersion"`
		Kind       string
		Items      []struct {
			Cluster struct{ ID string }
			Status  string
		}
	}
	if err := json.Unmarshal([]byte(stdout), &list); err != nil {
		t.Fatal(err)
	}
	if list.APIVersion != "periplus.io/v1" || list.Kind != "ClusterList" || len(list.Items) != 3 {
		t.Errorf("got %+v", list)
	}
}

// Registration prints a token once; the same spec again is idempotent, another spec under the same name is refused.
func TestRegistration(t *testing.T) {
	register := []string{"cluster", "register", "lab", "--region", "eu-west", "--network", "lab=" + prefix + ".99.0/24", "--trust-domain"}
	file := filepath.Join(t.TempDir(), "token")
	t.Cleanup(func() { run(t, "cluster", "remove", "lab", "--force") })
	first, stderr, code := run(t, append(register, "lab.mesh")...)
	if code != 0 || !strings.HasPrefix(first, "periplus-join-v1.") || !strings.Contains(stderr, "periplus agent --join-token-file") {
		t.Fatalf("exit %d: %s%s", code, first, stderr)
	}
	if _, stderr, code := run(t, append(register, "lab.mesh", "--token-file", file)...); code != 0 {
		t.Fatalf("again: exit %d: %s", code, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v %v", info, err)
	}
	if _, stderr, code := run(t, append(register, "eu-west.mesh")...); code != 65 || !strings.Contains(stderr, "eu-west") {
		t.Errorf("another's trust domain: exit %d: %s", code, stderr)
	}
}

func TestDrainAndUndrain(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound("visitor-us-east-a"), "catalog.shop")
	t.Cleanup(func() { run(t, "cluster", "undrain", "us-east") })
	time.Sleep(time.Second)
	if stdout, stderr, code := run(t, "cluster", "drain", "us-east"); code != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	drained := time.Now()
	time.Sleep(3 * time.Second)
	undrained := time.Now() // the command takes effect before it returns
	if stdout, stderr, code := run(t, "cluster", "undrain", "us-east"); code != 0 {
		t.Fatalf("%s%s", stdout, stderr)
	}
	time.Sleep(3 * time.Second)
	results := l.stop()
	noneFailed(t, results)
	if got := shares(before(since(results, drained.Add(time.Second)), undrained), region); got["us-east"] != 0 || len(got) == 0 {
		t.Errorf("while drained: %v", got)
	}
	near(t, last(results, time.Second), region, map[string]float64{"us-east": 1})
}
