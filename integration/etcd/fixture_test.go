package etcd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

const root = "/periplus/v1/east/"

// world is two clusters in one network: east keeps its workloads in etcd, west has a visitor's sidecar.
type world struct {
	*harness.Mesh
	t          *testing.T
	etcd       *realdeps.Etcd
	client     *clientv3.Client
	east, west *harness.Cluster
	agent      *realdeps.Process // east's
	visitor    *harness.Sidecar  // west's
	cart       *harness.Sidecar  // east's
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, etcd: realdeps.StartEtcd(t), Mesh: harness.New(t, harness.Options{Prefix: "127.43"})}
	var err error
	if w.client, err = (etcd.Connection{Endpoints: []string{w.etcd.Endpoint}}).Client(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.client.Close() })
	w.east = w.Cluster(harness.ClusterOptions{Name: "east", Network: "flat"})
	w.west = w.Cluster(harness.ClusterOptions{Name: "west", Network: "flat"})
	w.east.Authority()
	w.west.Authority()
	w.agent = w.east.StartAgent("--etcd", w.etcd.Endpoint, "--grace-period", "2s", "--etcd-lease", "3s")
	w.west.Agent()
	w.east.AwaitAgent(w.agent)
	w.visitor = w.west.Sidecar(harness.SidecarOptions{Name: "visitor-1", Service: "visitor.shop", Zone: "a"})
	w.put("services/shop/cart", "{apiVersion: periplus.io/v1, kind: Service, metadata: {name: cart, namespace: shop}, spec: {exported: true, ports: [{name: http, port: 80, protocol: http}]}}")
	w.cart = w.east.Sidecar(harness.SidecarOptions{Name: "cart-1", Service: "cart.shop", Zone: "a", App: w.App(t, "cart-1")})
	return w
}

// app serves its name at host of east, port 8080.
func (w *world) app(host int) (name, address string) {
	w.t.Helper()
	address = w.east.Host(host)
	name = "vm-" + strconv.Itoa(host)
	listener, err := net.Listen("tcp", address+":8080")
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { io.WriteString(out, name) }), ReadHeaderTimeout: time.Second}
	go server.Serve(listener)
	w.t.Cleanup(func() { server.Close() })
	return name, address
}

// register runs 'periplus workload register' for an app of the service.
func (w *world) register(service string, host int, ttl string, more ...string) *realdeps.Process {
	w.t.Helper()
	name, address := w.app(host)
	args := append([]string{
		"workload", "register", name, "--etcd", w.etcd.Endpoint, "--cluster", "east", "--service", service + ".shop",
		"--address", address, "--port", "http=8080:http:80", "--zone", "a", "--exported", "--ttl", ttl,
	}, more...)
	return realdeps.Run(w.t, "register-"+name, w.Program("periplus"), nil, args...)
}

// endpoints are the health of east's endpoints of a service, by name, as the agent of a cluster has them.
func endpoints(c *harness.Cluster, service string) (map[string]string, error) {
	response, err := http.Get("http://" + c.AgentAdmin + "/debug/endpointz")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var page map[string][]struct {
		Cluster   string
		Endpoints []struct{ Name, Health string }
	}
	if err := json.NewDecoder(response.Body).Decode(&page); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, slice := range page[service+".shop"] {
		for _, e := range slice.Endpoints {
			out[e.Name] = e.Health
		}
	}
	return out, nil
}

// has is an Eventually function: the cluster's agent has exactly these endpoints, NAME=HEALTH.
func has(c *harness.Cluster, service string, want ...string) func() error {
	return func() error {
		got, err := endpoints(c, service)
		if err != nil {
			return err
		}
		for _, one := range want {
			name, health, _ := strings.Cut(one, "=")
			if got[name] != health {
				return fmt.Errorf("%s is %q in %s, want %q", name, got[name], c.Name, health)
			}
		}
		if len(got) != len(want) {
			return fmt.Errorf("%s has %v, want %v", c.Name, got, want)
		}
		return nil
	}
}

// metric reads one of the agent's.
func metric(c *harness.Cluster, name string) float64 {
	response, err := http.Get("http://" + c.AgentAdmin + "/metrics")
	if err != nil {
		return -1
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err == nil {
				return number
			}
		}
	}
	return -1
}

func (w *world) put(path, value string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := w.client.Put(ctx, root+path, value); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) eventually(timeout time.Duration, what string, try func() error) time.Duration {
	w.t.Helper()
	took := harness.Eventually(w.t, timeout, what, try)
	w.t.Logf("%s: %s", what, took.Round(time.Millisecond))
	return took
}
