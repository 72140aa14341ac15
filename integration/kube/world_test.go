package kube

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// world is two clusters in one network, each with an API server: what A exports, B may use.
type world struct {
	*harness.Mesh
	etcd           *realdeps.Etcd
	kubeA, kubeB   *realdeps.Kubernetes
	a, b           *harness.Cluster
	agentA, agentB *realdeps.Process
	visitor        *harness.Sidecar // in B
	one, two       *harness.Sidecar // of catalog, in A
	plainAddress   string           // of an application in A that has no sidecar
	t              *testing.T
}

func newWorld(t *testing.T) *world {
	w := &world{etcd: realdeps.StartEtcd(t), t: t}
	started := make(chan *realdeps.Kubernetes)
	go func() { started <- realdeps.StartKubernetes(t, w.etcd, "b") }()
	w.kubeA = realdeps.StartKubernetes(t, w.etcd, "a")
	w.kubeB = <-started
	w.Mesh = harness.New(t, harness.Options{Prefix: prefix})
	w.a = w.Cluster(harness.ClusterOptions{Name: "a", Network: "flat"})
	w.b = w.Cluster(harness.ClusterOptions{Name: "b", Network: "flat"})
	w.agentA, w.agentB = start(w.a, w.kubeA), start(w.b, w.kubeB)
	w.a.AwaitAgent(w.agentA)
	w.b.AwaitAgent(w.agentB)
	w.visitor = w.b.Sidecar(harness.SidecarOptions{Name: "visitor-1", Service: "visitor.shop", Zone: "b1"})
	return w
}

func start(c *harness.Cluster, k *realdeps.Kubernetes) *realdeps.Process {
	c.Authority()
	c.AgentProgram = "periplus-agent"
	k.Kubectl("", "create", "namespace", "shop")
	return c.StartAgent("--kubeconfig", k.Kubeconfig, "--grace-period", "2s") // what a restarted agent misses it takes back after 6 s
}

// service is a Service whose port is named http.
func service(name string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec:
  ports: [{name: http, port: 80, targetPort: mesh-http}]
`, name)
}

func export(name string) string {
	return fmt.Sprintf(`
---
apiVersion: multicluster.x-k8s.io/v1alpha1
kind: ServiceExport
metadata: {name: %s, namespace: shop}
`, name)
}

func node(name, zone string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Node
metadata:
  name: %s
  labels: {topology.kubernetes.io/region: a, topology.kubernetes.io/zone: %s}
`, name, zone)
}

// pod runs a sidecar, which listens where the endpoints' port says.
func pod(service, name string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: shop, labels: {app: %s, periplus.io/sidecar: "true"}}
spec:
  nodeName: node-1
  serviceAccountName: %[2]s
  containers: [{name: app, image: app, ports: [{name: mesh-http, containerPort: 15006}]}]
`, name, service)
}

// endpoint is one line of a slice.
func endpoint(address, pod string, ready bool) string {
	if pod == "" {
		return fmt.Sprintf("- {addresses: [%q], conditions: {ready: %v}}\n", address, ready)
	}
	return fmt.Sprintf("- {addresses: [%q], conditions: {ready: %v}, nodeName: node-1, targetRef: {kind: Pod, namespace: shop, name: %s}}\n", address, ready, pod)
}

func slice(service, name string, port int, endpoints ...string) string {
	return fmt.Sprintf(`
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s, namespace: shop, labels: {kubernetes.io/service-name: %s}}
addressType: IPv4
ports: [{name: http, port: %d, protocol: TCP}]
endpoints:
%s`, name, service, port, strings.Join(endpoints, ""))
}

func apply(k *realdeps.Kubernetes, documents ...string) {
	k.Kubectl(strings.Join(documents, ""), "apply", "-f", "-")
}

// hosts are a sidecar's hosts of a service and their health, as its admin interface says.
func hosts(s *harness.Sidecar, service string) (map[string]bool, error) {
	response, err := http.Get("http://" + s.Admin + "/clusters")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	out := map[string]bool{}
	for line := range strings.Lines(string(body)) {
		rest, ok := strings.CutPrefix(line, "outbound|80||"+service+".shop.svc.cluster.local::")
		if !ok {
			continue
		}
		if address, flags, ok := strings.Cut(rest, "::health_flags::"); ok {
			out[address] = strings.TrimSpace(flags) == "healthy"
		}
	}
	return out, err
}

// sees waits until a sidecar has exactly these healthy hosts of a service, and returns how long that took.
func sees(t *testing.T, s *harness.Sidecar, service string, want ...string) time.Duration {
	t.Helper()
	return harness.Eventually(t, 20*time.Second, fmt.Sprintf("healthy hosts %q of %s", want, service), func() error {
		all, err := hosts(s, service)
		if err != nil {
			return err
		}
		healthy := 0
		for _, ok := range all {
			if ok {
				healthy++
			}
		}
		for _, address := range want {
			if !all[address] {
				return fmt.Errorf("hosts are %v", all)
			}
		}
		if healthy != len(want) {
			return fmt.Errorf("hosts are %v", all)
		}
		return nil
	})
}

// metric is the sum of the agent's series whose line has text.
func metric(t *testing.T, c *harness.Cluster, text string) (sum float64) {
	t.Helper()
	response, err := http.Get("http://" + c.AgentAdmin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(line, "} ")
		if strings.HasPrefix(line, "#") || !ok {
			series, value, _ = strings.Cut(line, " ")
		}
		if strings.HasPrefix(line, "#") || !strings.Contains(series+"}", text) {
			continue
		}
		number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		sum += number
	}
	return sum
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %v\n%s", url, response.Status, err, data)
	}
	return string(data)
}
