package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// value of a metric of a proxy.
func value(t *testing.T, proxy, metric string) float64 {
	t.Helper()
	return counted(t, running.admin(proxy)+"/stats/prometheus", metric)
}

// An agent that was away has nothing to tell its proxies that they do not know: not when they turn to a controller,
// not when they come back.
func TestNothingUnchangedIsSentAgain(t *testing.T) {
	proxies := []string{visitorA, "visitor-eu-west-b", "storefront-eu-west-a", "catalog-eu-west-a", "inventory-eu-west-b", "gateway-eu-west-a"}
	count := func() map[string]float64 {
		out := map[string]float64{}
		for _, proxy := range proxies {
			out[proxy] = value(t, proxy, "periplus_ads_client_resources_total")
		}
		return out
	}
	preferred := func(want float64) func() error {
		return func() error {
			for _, proxy := range proxies {
				if value(t, proxy, "periplus_ads_client_connected") != 1 || value(t, proxy, "periplus_ads_client_preferred") != want {
					return fmt.Errorf("%s is not", proxy)
				}
			}
			return nil
		}
	}
	within(t, 10*time.Second, "all follow the agent", preferred(1))
	running.settle()
	before := count()
	running.act(t, "kill", "agent-eu-west")
	within(t, 10*time.Second, "all follow a controller", preferred(0))
	running.settle()
	away := count()
	running.restore(t, "agent-eu-west")
	took := within(t, 20*time.Second, "all follow the agent again", preferred(1))
	time.Sleep(2 * time.Second)
	after := count()
	t.Logf("back after %v; resources received before: %v", took, before)
	for _, proxy := range proxies {
		if before[proxy] == 0 || away[proxy] != before[proxy] || after[proxy] != before[proxy] {
			t.Errorf("%s had received %v resources, %v when the agent was gone, %v when it was back", proxy, before[proxy], away[proxy], after[proxy])
		}
	}
}

// described is a field of 'cluster describe'.
func described(t *testing.T, cluster, pattern string) string {
	t.Helper()
	out, _, _ := run(t, "cluster", "describe", cluster)
	match := regexp.MustCompile(pattern).FindStringSubmatch(out)
	if match == nil {
		return ""
	}
	return match[1]
}

const generation = `Credential:\s+generation (\d+)`

func credentialFile(cluster string) string {
	return filepath.Join(running.plan.Dir, "agent", cluster, "credential.json")
}

// A rotation makes the agent fetch a new credential; nobody notices.
func TestCredentialRotation(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	before, err := os.ReadFile(credentialFile("eu-west"))
	if err != nil {
		t.Fatal(err)
	}
	old, began := described(t, "eu-west", generation), time.Now()
	if old == "" {
		t.Fatal("'cluster describe' does not say the generation of the credential")
	}
	if out, stderr, code := run(t, "cluster", "rotate", "eu-west"); code != 0 {
		t.Fatal(out, stderr)
	}
	within(t, 10*time.Second, "a new credential", func() error {
		now, err := os.ReadFile(credentialFile("eu-west"))
		certificate := regexp.MustCompile(`"certificates": \[[^\]]*`)
		if err == nil && string(certificate.Find(now)) == string(certificate.Find(before)) {
			err = fmt.Errorf("still the old one")
		}
		return err
	})
	t.Logf("the agent had a new credential after %v", time.Since(began))
	within(t, 10*time.Second, "it is connected", func() error {
		if status := described(t, "eu-west", `Status:\s+(\S+)`); status != "Connected" || described(t, "eu-west", generation) == old {
			return fmt.Errorf("%s, generation %s", status, described(t, "eu-west", generation))
		}
		return nil
	})
	noneFailed(t, l.stop())
}

// A revoked credential is refused at once, and its sessions end; the cluster's traffic goes on, and so does its
// agent after it has joined again.
func TestCredentialRevocation(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	stolen := agentCredential(t, "eu-west")
	if out, stderr, code := run(t, "cluster", "rotate", "eu-west", "--revoke"); code != 0 {
		t.Fatal(out, stderr)
	}
	t.Cleanup(func() { rejoin(t) })
	took := within(t, 5*time.Second, "the session ends", func() error {
		if status := described(t, "eu-west", `Status:\s+(\S+)`); status == "Connected" {
			return fmt.Errorf("%s", status)
		}
		return nil
	})
	t.Logf("the session ended after %v", took)
	address, _, _ := running.leaderAt(t)
	if _, err := impersonateAs(t, t.Context(), stolen, address); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("with the revoked credential: %v", err)
	}
	time.Sleep(2 * time.Second)
	rejoin(t)
	time.Sleep(time.Second)
	noneFailed(t, l.stop())
}

// rejoin gives the agent a new token, if it needs one.
func rejoin(t *testing.T) {
	t.Helper()
	if described(t, "eu-west", `Status:\s+(\S+)`) == "Connected" {
		return
	}
	register := []string{"cluster", "register", "eu-west", "--region", "eu-west", "--network", "eu-west=" + prefix + ".1.0/24", "--trust-domain", "eu-west.mesh",
		"--token-file", filepath.Join(running.plan.Dir, "tokens", "eu-west")}
	if out, stderr, code := run(t, register...); code != 0 {
		t.Fatal(out, stderr)
	}
	for _, action := range []string{"kill", "start"} {
		if err := running.control.Act(t.Context(), action, "agent-eu-west"); err != nil {
			t.Fatal(err)
		}
	}
	within(t, 20*time.Second, "the agent is connected again", func() error {
		if status := described(t, "eu-west", `Status:\s+(\S+)`); status != "Connected" {
			return fmt.Errorf("%s", status)
		}
		return get(running.process("agent-eu-west").Ready)
	})
}
