package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// etcd that cannot be reached withdraws nothing, is not taken for empty, and Run leaves nothing behind.
func TestOutOfReach(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	table := own.New(new(mesh.Store), own.Owner{Cluster: cluster.ID, Domain: cluster.TrustDomain})
	record, err := ParseRecord(Name{Endpoints, catalog, "a"}, []byte(workloadValue("catalog", "a", "10.0.0.1", "healthy")), cluster)
	if err != nil {
		t.Fatal(err)
	}
	table.Replace(own.Etcd, []mesh.Object{record.Slice})
	s, err := New(Config{
		Connection: Connection{Endpoints: []string{"http://127.0.0.1:1"}}, GracePeriod: 10 * time.Millisecond,
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	never := make(chan struct{})
	sink := clusteragent.NewSink(table, own.Etcd, func() (*mesh.Cluster, <-chan struct{}) { return cluster, never })
	if err := s.Run(ctx, sink); err != nil {
		t.Error(err)
	}
	if held := sink.Held(); len(held) != 1 {
		t.Errorf("held %v", held)
	}
	select {
	case <-s.Synced():
		t.Error("synced though nothing was read")
	default:
	}
}

// An etcd that was restored from a backup may be at a newer revision than the one before: its watch would pass over
// what was changed in between.
func TestAnotherEtcdIsReadAnew(t *testing.T) {
	f := &follower{revision: 7, cluster: 1}
	at := func(cluster uint64, revision int64) error {
		return f.take(&clientv3.WatchResponse{Header: &etcdserverpb.ResponseHeader{ClusterId: cluster, Revision: revision}})
	}
	for name, row := range map[string]struct {
		err  error
		want error
	}{
		"the same":          {at(1, 8), nil},
		"at an older state": {at(1, 6), errRewound},
		"another one":       {at(2, 100), errRewound},
	} {
		if !errors.Is(row.err, row.want) {
			t.Errorf("%s: %v, want %v", name, row.err, row.want)
		}
	}
}

func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		connection Connection
		want       string
	}{
		"good":                      {Connection{Endpoints: []string{"http://a:2379", "http://b:2379"}}, ""},
		"password on this machine":  {Connection{Endpoints: []string{"http://127.0.0.1:2379"}, User: "u", PasswordFile: file}, ""},
		"none":                      {Connection{}, "an endpoint is needed"},
		"no scheme":                 {Connection{Endpoints: []string{"a:2379"}}, "want http://HOST:PORT"},
		"password in the open":      {Connection{Endpoints: []string{"http://10.0.0.1:2379"}, User: "u", PasswordFile: file}, "over https only"},
		"user without password":     {Connection{Endpoints: []string{"https://a:2379"}, User: "u"}, "needed together"},
		"key without a certificate": {Connection{Endpoints: []string{"https://a:2379"}, Key: file}, "needed together"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.connection.validate()
			if got := fmt.Sprint(err); c.want == "" && err != nil || !strings.Contains(got, c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	for name, c := range map[string]Connection{
		"no such CA":     {Endpoints: []string{"https://a:2379"}, CA: "/none"},
		"not a CA":       {Endpoints: []string{"https://a:2379"}, CA: file},
		"not a key pair": {Endpoints: []string{"https://a:2379"}, Cert: file, Key: file},
	} {
		if _, err := c.Client(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// One record read, judged and entered: about 0.2 ms.
func BenchmarkPut(b *testing.B) {
	r := newRegistry(cluster, grace, func(int64) bool { return false })
	service := serviceValue("catalog", 80, true)
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprintf("vm-%d", i)
		value := both(service, workloadValue("catalog", name, fmt.Sprintf("10.%d.%d.%d", i>>16&255, i>>8&255, i&255|1), "healthy"))
		if e := r.put("endpoints/shop/catalog/"+name, []byte(value), 7); e != nil {
			b.Fatal(e.reason)
		}
	}
}
