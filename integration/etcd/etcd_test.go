package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/integration/harness"
)

// The parts share one mesh, and run in this order.
func TestRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, part := range []struct {
		name string
		run  func(*world)
	}{
		{"register, deregister", registerDeregister},
		{"lease", leaseEnds},
		{"sidecar", sidecarIsWritten},
		{"bad value", badValue},
		{"outage", outage},
		{"compaction", compaction},
		{"restart without etcd", restartWithoutEtcd},
		{"etcd lost everything", lostEverything},
	} {
		passed := t.Run(part.name, func(t *testing.T) {
			inner := *w
			inner.t = t
			part.run(&inner)
		})
		if !passed {
			break
		}
	}
}

func registerDeregister(w *world) {
	began := time.Now()
	one := w.register("catalog", 51, "5s")
	w.eventually(10*time.Second, "another cluster's sidecar reaches it, process start included", harness.Answered(w.visitor.Outbound, "catalog.shop", "vm-51"))
	w.t.Logf("since the command began: %s", time.Since(began).Round(time.Millisecond))
	lease, err := w.client.Grant(context.Background(), 60)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Put(context.Background(), root+"endpoints/shop/catalog/quick", workload("catalog", "quick", w.east.Host(52)), clientv3.WithLease(lease.ID)); err != nil {
		w.t.Fatal(err)
	}
	w.eventually(5*time.Second, "a put is seen by another cluster's agent", has(w.west, "catalog", "vm-51=healthy", "quick=healthy"))
	w.Periplus("workload", "deregister", "quick", "--service", "catalog.shop", "--cluster", "east", "--etcd", w.etcd.Endpoint)
	w.eventually(3*time.Second, "deregistered", has(w.west, "catalog", "vm-51=healthy"))
	if out := w.Periplus("workload", "list", "--cluster", "east", "--etcd", w.etcd.Endpoint, "-o", "name"); out != "workload/vm-51\nworkload/cart-1\n" {
		w.t.Errorf("list: %q", out)
	}
	_, problems, err := w.TryPeriplus("", "workload", "deregister", "quick", "--service", "catalog.shop", "--cluster", "east", "--etcd", w.etcd.Endpoint)
	if err == nil || err.Error() != "exit status 65" {
		w.t.Errorf("deregistered twice: %v %s", err, problems)
	}
	one.Stop()
	w.eventually(3*time.Second, "interrupted", has(w.west, "catalog"))
	two := w.register("catalog", 53, "5s")
	w.eventually(10*time.Second, "registered", has(w.west, "catalog", "vm-53=healthy"))
	w.Periplus("workload", "deregister", "vm-53", "--service", "catalog.shop", "--cluster", "east", "--etcd", w.etcd.Endpoint)
	w.eventually(5*time.Second, "its command notices", func() error {
		if two.Running() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
}

func leaseEnds(w *world) {
	stays := w.register("lease", 54, "30s")
	one := w.register("lease", 55, "5s")
	w.eventually(10*time.Second, "registered", has(w.west, "lease", "vm-54=healthy", "vm-55=healthy"))
	time.Sleep(2 * time.Second) // a lease that was renewed
	one.Kill()
	killed := time.Now()
	w.eventually(12*time.Second, "killed: unhealthy", has(w.west, "lease", "vm-54=healthy", "vm-55=unhealthy"))
	// It was renewed every third of its 5 s, so at least two thirds were left.
	if took := time.Since(killed); took < 3*time.Second || took > 9*time.Second {
		w.t.Errorf("a lease of 5s ended %s after its holder", took)
	}
	w.eventually(5*time.Second, "then gone", has(w.west, "lease", "vm-54=healthy"))
	stays.Stop()
}

// What a sidecar announces is in etcd under the agent's lease, and not twice in the mesh; an agent that lost its disk
// reads it there; and it goes by the lease when agent and sidecar are gone.
func sidecarIsWritten(w *world) {
	key := root + "sidecars/shop/cart/cart-1"
	w.eventually(5*time.Second, "written", func() error {
		response, err := w.client.Get(context.Background(), key)
		if err == nil && (len(response.Kvs) != 1 || response.Kvs[0].Lease == 0) {
			err = fmt.Errorf("%v", response.Kvs)
		}
		return err
	})
	w.eventually(5*time.Second, "exported by its definition in etcd", has(w.west, "cart", "cart-1=healthy"))
	w.eventually(5*time.Second, "answers", harness.Answered(w.visitor.Outbound, "cart.shop", "cart-1"))
	w.agent.Kill()
	w.cart.Kill()
	if err := os.RemoveAll(filepath.Join(w.Dir, "agent", "east")); err != nil {
		w.t.Fatal(err)
	}
	w.east.Register()
	w.agent.Start()
	w.eventually(3*time.Second, "an agent without a disk reads it", has(w.east, "cart", "cart-1=healthy"))
	w.eventually(12*time.Second, "the lease of the former agent ended", has(w.east, "cart"))
	w.east.AwaitAgent(w.agent)
	w.eventually(5*time.Second, "gone elsewhere", has(w.west, "cart"))
}

func workload(service, name, address string) string {
	return fmt.Sprintf("apiVersion: periplus.io/v1\nkind: Service\nmetadata: {name: %s, namespace: shop}\nspec: {exported: true, ports: [{name: http, port: 80, protocol: http}]}\n---\n"+
		"apiVersion: periplus.io/v1\nkind: Endpoints\nmetadata: {name: %s, namespace: shop}\nspec: {endpoints: [{name: %s, address: %s, ports: {http: 8080}}]}\n", service, service, name, address)
}

func badValue(w *world) {
	name, address := w.app(56)
	w.put("endpoints/shop/bad/"+name, workload("bad", name, address))
	w.eventually(5*time.Second, "registered", harness.Answered(w.visitor.Outbound, "bad.shop", name))
	before := metric(w.east, "periplus_agent_etcd_records_refused_total")
	bad := map[string]string{
		"endpoints/shop/bad/" + name:  "nonsense",
		"endpoints/shop/bad/foreign":  workload("bad", "foreign", "192.0.2.1"),
		"endpoints/shop/other/stolen": workload("bad", "stolen", address),
		"nobody/knows/this":           "x",
	}
	for path, value := range bad {
		w.put(path, value)
	}
	w.put("endpoints/shop/bad/good", workload("bad", "good", w.east.Host(57)))
	w.eventually(5*time.Second, "the rest applies", has(w.west, "bad", name+"=healthy", "good=healthy"))
	if refused := metric(w.east, "periplus_agent_etcd_records_refused_total") - before; refused != float64(len(bad)) {
		w.t.Errorf("%v refused, want %d", refused, len(bad))
	}
	if err := harness.Answered(w.visitor.Outbound, "bad.shop", "")(); err != nil {
		w.t.Error(err)
	}
	for path := range bad {
		if _, err := w.client.Delete(context.Background(), root+path); err != nil {
			w.t.Fatal(err)
		}
	}
	w.put("endpoints/shop/bad/good", "") // a value that never is one
	w.client.Delete(context.Background(), root+"endpoints/shop/bad/good")
	w.eventually(5*time.Second, "deleted", has(w.west, "bad"))
}

// etcd is away for three times the leases, under load.
func outage(w *world) {
	holder := w.register("catalog", 58, "5s")
	w.eventually(10*time.Second, "registered", harness.Answered(w.visitor.Outbound, "catalog.shop", "vm-58"))
	load := harness.StartLoad(w.t, 50, harness.Requests(w.t, w.visitor.Outbound, "catalog.shop"))
	w.etcd.Stop()
	for range 150 {
		time.Sleep(100 * time.Millisecond)
		if err := has(w.west, "catalog", "vm-58=healthy")(); err != nil {
			w.t.Fatalf("etcd is away: %v", err)
		}
	}
	if metric(w.east, "periplus_agent_etcd_connected") != 0 {
		w.t.Error("the agent does not say that etcd is away")
	}
	w.etcd.Start()
	w.etcd.AwaitReady()
	w.put("endpoints/shop/after/new", workload("after", "new", w.east.Host(59)))
	w.eventually(8*time.Second, "etcd is back: it is followed on", has(w.west, "after", "new=healthy"))
	for range 60 { // past the lease, had nobody renewed it
		time.Sleep(100 * time.Millisecond)
		if err := has(w.west, "catalog", "vm-58=healthy")(); err != nil {
			w.t.Fatalf("etcd is back: %v", err)
		}
	}
	load.NoneFailed(w.t)
	holder.Stop()
	w.eventually(3*time.Second, "interrupted", has(w.west, "catalog"))
	w.client.Delete(context.Background(), root+"endpoints/shop/after/new")
}

// The agent is cut off while records come, go and are compacted away.
func compaction(w *world) {
	w.put("endpoints/shop/compact/stays", workload("compact", "stays", w.east.Host(60)))
	w.put("endpoints/shop/compact/goes", workload("compact", "goes", w.east.Host(61)))
	w.eventually(5*time.Second, "registered", has(w.west, "compact", "stays=healthy", "goes=healthy"))
	before := metric(w.east, `periplus_agent_etcd_lists_total{reason="compacted"}`)
	// etcd takes the watch of a client that it cannot reach for slow, and compaction ends it. To be sure, its connection
	// is broken too: etcd is restarted.
	w.agent.Signal(syscall.SIGSTOP)
	w.etcd.Stop()
	w.etcd.Start()
	w.etcd.AwaitReady()
	ctx := context.Background()
	response, err := w.client.Delete(ctx, root+"endpoints/shop/compact/goes")
	for i := range 20 {
		if err == nil {
			_, err = w.client.Put(ctx, root+"endpoints/shop/compact/comes", workload("compact", "comes", w.east.Host(70+i)))
		}
	}
	if err == nil {
		_, err = w.client.Compact(ctx, response.Header.Revision+20)
	}
	w.agent.Signal(syscall.SIGCONT)
	if err != nil {
		w.t.Fatal(err)
	}
	w.eventually(15*time.Second, "listed anew", has(w.west, "compact", "stays=healthy", "comes=healthy"))
	if after := metric(w.east, `periplus_agent_etcd_lists_total{reason="compacted"}`); after <= max(before, 0) {
		w.t.Errorf("lists for compaction: %v, then %v", before, after)
	}
}

// An agent that restarts while etcd is away serves what it knew.
func restartWithoutEtcd(w *world) {
	name, address := w.app(62)
	w.put("endpoints/shop/disk/"+name, workload("disk", name, address))
	w.eventually(5*time.Second, "registered", harness.Answered(w.visitor.Outbound, "disk.shop", name))
	time.Sleep(1500 * time.Millisecond) // written to disk
	load := harness.StartLoad(w.t, 50, harness.Requests(w.t, w.visitor.Outbound, "disk.shop"))
	w.etcd.Stop()
	w.agent.Kill()
	w.agent.Start()
	w.east.AwaitAgent(w.agent)
	for range 15 {
		for _, c := range []*harness.Cluster{w.east, w.west} {
			if err := has(c, "disk", name+"=healthy")(); err != nil {
				w.t.Fatal(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	w.etcd.Start()
	w.etcd.AwaitReady()
	w.put("endpoints/shop/disk/second", workload("disk", "second", w.east.Host(63)))
	w.eventually(8*time.Second, "followed on", has(w.west, "disk", name+"=healthy", "second=healthy"))
	w.client.Delete(context.Background(), root+"endpoints/shop/disk/second")
	load.NoneFailed(w.t)
}

// Everything vanishes at once: it is kept until those that live have written themselves again.
func lostEverything(w *world) {
	var holders []interface{ Stop() }
	for host := 64; host <= 66; host++ {
		holders = append(holders, w.register("mass", host, "6s"))
	}
	all := []string{"vm-64=healthy", "vm-65=healthy", "vm-66=healthy"}
	w.eventually(10*time.Second, "registered", has(w.west, "mass", all...))
	if _, err := w.client.Delete(context.Background(), root+"endpoints/shop/disk/", clientv3.WithPrefix()); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Delete(context.Background(), root+"endpoints/shop/compact/", clientv3.WithPrefix()); err != nil {
		w.t.Fatal(err)
	}
	load := harness.StartLoad(w.t, 50, harness.Requests(w.t, w.visitor.Outbound, "mass.shop"))
	leases, err := w.client.Leases(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		if _, err := w.client.Revoke(context.Background(), lease.ID); err != nil {
			w.t.Fatal(err)
		}
	}
	for range 40 {
		if err := has(w.west, "mass", all...)(); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	load.NoneFailed(w.t)
	w.eventually(5*time.Second, "nothing is held any more", func() error {
		if held := metric(w.east, `periplus_agent_etcd_records{state="held"}`); held != 0 {
			return fmt.Errorf("%v held", held)
		}
		return nil
	})
	if out := w.Periplus("workload", "list", "--cluster", "east", "--etcd", w.etcd.Endpoint, "-o", "name"); !strings.HasPrefix(out, "workload/vm-64\nworkload/vm-65\nworkload/vm-66\n") {
		w.t.Errorf("list: %q", out)
	}
	for _, holder := range holders {
		holder.Stop()
	}
}
