package kube

import (
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/deploy/kubernetes"
	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

var away = flag.Duration("away", time.Minute, "how long the API server is gone the first time")

// What is applied in one cluster is used from another, if it is exported; and stays, whatever becomes of the API server.
func TestKubernetes(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"export", w.export}, {"changes", w.changes}, {"plain", w.plain}, {"conditions", w.conditions},
		{"manifests", w.manifests}, {"away", w.away},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

func (w *world) export(t *testing.T) {
	w.one = w.a.Sidecar(harness.SidecarOptions{Name: "catalog-1", Service: "catalog.shop", Zone: "a1", App: w.App(w.t, "catalog-1")})
	w.two = w.a.Sidecar(harness.SidecarOptions{Name: "catalog-2", Service: "catalog.shop", Zone: "a1", App: w.App(w.t, "catalog-2")})
	apply(w.kubeA, node("node-1", "a1"), service("catalog"), pod("catalog", "catalog-1"), pod("catalog", "catalog-2"), w.catalog(true, true))
	if all, err := hosts(w.visitor, "catalog"); err != nil || len(all) > 0 {
		t.Fatalf("without a ServiceExport the other cluster has %v (%v)", all, err)
	}
	definition, err := kubernetes.ServiceExport()
	if err != nil {
		t.Fatal(err)
	}
	apply(w.kubeA, string(definition))
	w.kubeA.Kubectl("", "wait", "--for=condition=Established", "crd/serviceexports.multicluster.x-k8s.io", "--timeout=30s")
	apply(w.kubeA, export("catalog"))
	t.Logf("seen in the other cluster %s after the first export", sees(t, w.visitor, "catalog", w.one.Inbound, w.two.Inbound))
	harness.Eventually(t, 10*time.Second, "a request", harness.Answered(w.visitor.Outbound, "catalog.shop", ""))
	_, _, header, err := harness.Get(w.visitor.Outbound, "catalog.shop", "/")
	if got, want := header.Get(harness.HeaderCaller), w.b.ID("visitor").String(); err != nil || got != want {
		t.Errorf("the app saw caller %q, want %q (%v)", got, want, err)
	}
}

// catalog is the slice of the two sidecars.
func (w *world) catalog(one, two bool) string {
	return slice("catalog", "catalog-x", 15006, endpoint(w.one.Address, "catalog-1", one), endpoint(w.two.Address, "catalog-2", two))
}

// Both sidecars announce themselves as healthy: what Kubernetes says counts all the same.
func (w *world) changes(t *testing.T) {
	var slowest time.Duration
	for range 5 {
		for _, change := range []struct {
			slice string
			hosts []string
		}{{w.catalog(true, false), []string{w.one.Inbound}}, {w.catalog(true, true), []string{w.one.Inbound, w.two.Inbound}}} {
			began := time.Now()
			apply(w.kubeA, change.slice)
			applied := time.Since(began)
			after := sees(t, w.visitor, "catalog", change.hosts...)
			slowest = max(slowest, after)
			t.Logf("kubectl apply took %s; the other cluster's sidecar has it %s after that", applied.Round(time.Millisecond), after.Round(time.Millisecond))
		}
	}
	if slowest > 2*time.Second {
		t.Errorf("a change took %s from kubectl to the other cluster's sidecar", slowest)
	}
}

// plain is an application without a sidecar, known to Kubernetes alone.
func (w *world) plain(t *testing.T) {
	w.plainAddress = w.a.Host(200) + ":8080"
	listener, err := net.Listen("tcp", w.plainAddress)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "plain") })}
	go server.Serve(listener)
	w.t.Cleanup(func() { server.Close() })
	apply(w.kubeA, service("plain"), export("plain"), slice("plain", "plain-x", 8080, endpoint(w.a.Host(200), "", true), endpoint("198.51.100.1", "", true)))
	sees(t, w.visitor, "plain", w.plainAddress) // and the address outside the CIDRs is left out
	harness.Eventually(t, 10*time.Second, "a request", harness.Answered(w.visitor.Outbound, "plain.shop", "plain"))
	if got := metric(t, w.a, `periplus_agent_kubernetes_left_out{reason="network"}`); got != 1 {
		t.Errorf("left out by network: %v, want 1", got)
	}
}

func (w *world) conditions(t *testing.T) {
	apply(w.kubeA, export("nothing"))
	for name, want := range map[string]string{"catalog": "True Valid", "nothing": "False NoService"} {
		harness.Eventually(t, 10*time.Second, "condition of "+name, func() error {
			got := w.kubeA.Kubectl("", "get", "serviceexport", "-n", "shop", name, "-o", "jsonpath={.status.conditions[0].status} {.status.conditions[0].reason}")
			if got != want {
				return fmt.Errorf("%q, want %q", got, want)
			}
			return nil
		})
	}
	apply(w.kubeA, service("nothing"))
	harness.Eventually(t, 10*time.Second, "the Service is noticed", func() error {
		if got := w.kubeA.Kubectl("", "get", "serviceexport", "-n", "shop", "nothing", "-o", "jsonpath={.status.conditions[0].reason}"); got != "Valid" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
}

const account = "system:serviceaccount:" + kubernetes.Namespace + ":" + kubernetes.Account

// manifests installs what 'cluster register' prints into cluster B, and goes on there with the rights of it.
func (w *world) manifests(t *testing.T) {
	out := w.Periplus("cluster", "register", "b", "--region", "b", "--trust-domain", w.b.TrustDomain, "--network", "flat="+w.b.CIDR,
		"--kubernetes", "--image", "registry.test/periplus-agent:1", "--crds", "--network-policy", "--spire-server", "spire.test:8081", "-o", "yaml")
	t.Log("\n" + w.kubeB.Kubectl(out, "apply", "--validate=strict", "-f", "-"))
	w.kubeB.Kubectl(out, "apply", "--validate=strict", "--dry-run=server", "-f", "-")
	for question, want := range map[string]string{
		"list services": "yes", "watch endpointslices.discovery.k8s.io": "yes", "list pods": "yes", "watch nodes": "yes",
		"list serviceexports.multicluster.x-k8s.io": "yes", "patch serviceexports.multicluster.x-k8s.io/status": "yes",
		"list secrets": "no", "get secrets": "no", "list configmaps": "no", "create pods": "no", "delete services": "no", "patch nodes": "no",
		"update endpointslices.discovery.k8s.io": "no", "patch serviceexports.multicluster.x-k8s.io": "no", "create serviceaccounts/token": "no",
		"get services": "no", "impersonate users": "no", "create pods/exec": "no", "create subjectaccessreviews.authorization.k8s.io": "no",
	} {
		verb, resource, _ := strings.Cut(question, " ")
		resource, sub, _ := strings.Cut(resource, "/")
		args := []string{"auth", "can-i", verb, resource, "--all-namespaces", "--as", account}
		if sub != "" {
			args = append(args, "--subresource", sub)
		}
		answer, _ := w.kubeB.TryKubectl("", args...)
		if lines := strings.Split(strings.TrimSpace(answer), "\n"); lines[len(lines)-1] != want {
			t.Errorf("may the agent %s? %s; want %s", question, answer, want)
		}
	}
	w.restartWithRights(t)
}

// restartWithRights starts B's agent anew, as the Deployment would: with the account's token and the Secret's.
func (w *world) restartWithRights(t *testing.T) {
	w.agentB.Stop()
	if err := os.RemoveAll(filepath.Join(w.Dir, "agent", "b")); err != nil {
		t.Fatal(err)
	}
	encoded := w.kubeB.Kubectl("", "get", "secret", "-n", kubernetes.Namespace, "periplus-join-token", "-o", "jsonpath={.data.token}")
	token, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	w.b.TokenFile = w.b.File("token", string(token))
	bearer := w.kubeB.Kubectl("", "create", "token", "-n", kubernetes.Namespace, kubernetes.Account)
	config := w.kubeB.KubeconfigFor(w.Dir, "account", strings.TrimSpace(bearer))
	w.agentB = w.b.StartAgent("--kubeconfig", config)
	w.b.AwaitAgent(w.agentB)
	apply(w.kubeB, service("local"), export("local"), slice("local", "local-x", 8080, endpoint(w.b.Host(201), "", true)))
	sees(t, w.visitor, "local", w.b.Host(201)+":8080")
	harness.Eventually(t, 10*time.Second, "condition", func() error {
		if got := w.kubeB.Kubectl("", "get", "serviceexport", "-n", "shop", "local", "-o", "jsonpath={.status.conditions[0].reason}"); got != "Valid" {
			return fmt.Errorf("%q", got)
		}
		return nil
	})
	sees(t, w.visitor, "catalog", w.one.Inbound, w.two.Inbound)
}

// away takes the API server from the agent, twice: with an expired watch, and with a restart of the agent.
func (w *world) away(t *testing.T) {
	catalog := harness.StartLoad(t, 50, harness.Requests(t, w.visitor.Outbound, "catalog.shop"))
	plain := harness.StartLoad(t, 50, harness.Requests(t, w.visitor.Outbound, "plain.shop"))
	stays := w.watchHosts(t)

	expired := metric(t, w.a, `reason="expired"`)
	w.kubeA.Kill()
	time.Sleep(*away / 2)
	compact(t, w.etcd, w.kubeB)
	time.Sleep(*away / 2)
	if metric(t, w.a, `reason="unreachable"`) == 0 {
		t.Error("the agent did not count that the API server is out of reach")
	}
	w.kubeA.Start()
	w.kubeA.AwaitReady()
	w.noticed(t, "noticed-1")
	if n := metric(t, w.a, `reason="expired"`) - expired; n == 0 {
		t.Error("no watch expired: this shows nothing of it")
	} else {
		t.Logf("%v watches expired", n)
	}

	w.kubeA.Kill()
	w.agentA.Kill()
	w.agentA.Start()
	w.a.AwaitAgent(w.agentA) // from disk
	time.Sleep(*away / 6)
	stays(t)
	w.kubeA.Start()
	w.kubeA.AwaitReady()
	w.noticed(t, "noticed-2")
	stays(t)
	catalog.NoneFailed(t)
	plain.NoneFailed(t)

	apply(w.kubeA, slice("plain", "plain-x", 8080))
	sees(t, w.visitor, "plain") // what is taken away goes
}

// noticed applies something new and waits until the other cluster has it.
func (w *world) noticed(t *testing.T, name string) {
	apply(w.kubeA, service(name), export(name), slice(name, name+"-x", 8080, endpoint(w.a.Host(202), "", true)))
	t.Logf("after the API server came back, a change is seen within %s", sees(t, w.visitor, name, w.a.Host(202)+":8080"))
}

// watchHosts looks at the visitor's hosts all the time; what it returns fails the test if one was ever missing.
func (w *world) watchHosts(t *testing.T) func(*testing.T) {
	stop, failures := make(chan struct{}), make(chan string, 1)
	want := map[string][]string{"catalog": {w.one.Inbound, w.two.Inbound}, "plain": {w.plainAddress}}
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for service, addresses := range want {
				all, err := hosts(w.visitor, service)
				for _, address := range addresses {
					if _, ok := all[address]; err == nil && !ok {
						select {
						case failures <- fmt.Sprintf("%s has %v, without %s", service, all, address):
						default:
						}
					}
				}
			}
		}
	}()
	t.Cleanup(func() { close(stop) })
	return func(t *testing.T) {
		t.Helper()
		select {
		case f := <-failures:
			t.Error(f)
		default:
		}
	}
}

// compact makes every older revision unknown to etcd, after others have passed.
func compact(t *testing.T, e *realdeps.Etcd, other *realdeps.Kubernetes) {
	other.Kubectl("", "create", "namespace", fmt.Sprintf("n%d", time.Now().UnixNano()))
	status := post(t, e.Endpoint+"/v3/maintenance/status", "{}")
	_, rest, _ := strings.Cut(status, `"revision":"`)
	revision, _, _ := strings.Cut(rest, `"`)
	post(t, e.Endpoint+"/v3/kv/compaction", `{"physical":true,"revision":"`+revision+`"}`)
}
