package etcd

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Many workloads: how long the first list takes, and a burst.
func TestManyWorkloads(t *testing.T) {
	t.Parallel()
	const many = 5000
	e := realdeps.StartEtcd(t)
	c := etcd.Connection{Endpoints: []string{e.Endpoint}}
	client, err := c.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	write := func(from, to int, address string) {
		for ; from < to; from += 100 {
			var ops []clientv3.Op
			for i := from; i < from+100; i++ {
				service, name := fmt.Sprintf("s%d", i%500), fmt.Sprintf("vm-%d", i)
				ops = append(ops, clientv3.OpPut(root+"endpoints/shop/"+service+"/"+name, workload(service, name, fmt.Sprintf("%s.%d.%d", address, i/250, i%250+1))))
			}
			if _, err := client.Txn(context.Background()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(0, many, "10.0")
	store := new(mesh.Store)
	table := own.New(store, own.Owner{Cluster: east.ID, Domain: east.TrustDomain})
	began := time.Now()
	runSource(t, c, table)
	t.Logf("%d workloads of 500 services listed: %s", many, time.Since(began).Round(time.Millisecond))
	if n := len(table.Layer(own.Etcd)); n != many+500 {
		t.Errorf("%d objects", n)
	}
	time.Sleep(500 * time.Millisecond) // until the watch is open
	before, _ := store.Latest()
	began = time.Now()
	write(0, 1000, "10.1")
	for {
		snapshot, changed := store.Latest()
		slice, _ := snapshot.Get(mesh.EndpointsKey(mesh.ServiceName{Namespace: "shop", Name: "s499"}, east.ID, "vm-999"))
		if slice.(*mesh.EndpointSlice).Endpoints[0].Address.String() == "10.1.3.250" {
			t.Logf("a burst of 1000: %s, %d revisions", time.Since(began).Round(time.Millisecond), snapshot.Revision()-before.Revision())
			if n := snapshot.Revision() - before.Revision(); n > 100 {
				t.Errorf("%d revisions for one burst of 1000", n)
			}
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatal("the burst did not arrive")
		}
	}
}
