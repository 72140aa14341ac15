package etcd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	clientv3 "go.etcd.io/etcd/client/v3"

	clusteragent "github.com/periplus-mesh/periplus/cluster-agent"
	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
)

// An etcd with TLS, client certificates, users and roles: the rights that docs/machines.md names are enough, and no
// more is allowed.
func TestRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certificate, key := clientCertificate(t, dir)
	client, peer := "https://"+realdeps.Address(), "http://"+realdeps.Address()
	server := realdeps.Run(t, "etcd-tls", realdeps.Path(t, "etcd"), nil, "--name", "tls", "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", "tls="+peer, "--cert-file", certificate, "--key-file", key, "--trusted-ca-file", certificate, "--client-cert-auth")
	as := func(user string) etcd.Connection {
		// The first of the members never answers.
		c := etcd.Connection{Endpoints: []string{"https://127.0.0.1:1", client}, CA: certificate, Cert: certificate, Key: key}
		if user != "" {
			c.User, c.PasswordFile = user, filepath.Join(dir, user)
			if err := os.WriteFile(c.PasswordFile, []byte(user+"-secret\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	admin, err := as("").Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	server.Await(20*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := admin.Get(ctx, "x")
		return err
	})
	users(t, admin)

	table := own.New(new(mesh.Store), own.Owner{Cluster: east.ID, Domain: east.TrustDomain})
	runSource(t, as("agent"), table)
	vm, err := as("vm").Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	name := etcd.Name{Folder: etcd.Endpoints, Service: mesh.ServiceName{Namespace: "shop", Name: "catalog"}, Workload: "vm-1"}
	hold(t, vm, etcd.Records{name.Path(): []byte(workload("catalog", "vm-1", "10.0.0.1"))})
	slice := mesh.EndpointsKey(name.Service, east.ID, "vm-1")
	harness.Eventually(t, 10*time.Second, "the agent reads the workload", func() error {
		if _, ok := table.Get(own.Etcd, slice); !ok {
			return fmt.Errorf("%d objects", len(table.Layer(own.Etcd)))
		}
		return nil
	})
	announced, _ := table.Get(own.Etcd, slice)
	sidecar := *announced.(*mesh.EndpointSlice)
	sidecar.Slice, sidecar.Endpoints = "cart-1", append([]mesh.Endpoint(nil), sidecar.Endpoints...)
	sidecar.Endpoints[0].Name = "cart-1"
	table.Apply(own.Workloads, mesh.Delta{Upserts: []mesh.Object{&sidecar}})
	harness.Eventually(t, 10*time.Second, "the agent writes its sidecar", func() error {
		response, err := vm.Get(t.Context(), root+"sidecars/shop/catalog/cart-1")
		if err == nil && len(response.Kvs) == 0 {
			err = fmt.Errorf("not there")
		}
		return err
	})
	for _, path := range []string{"endpoints/shop/payment/vm-1", "services/shop/catalog", "sidecars/shop/catalog/vm-1"} {
		if _, err := vm.Put(t.Context(), root+path, "x"); err == nil {
			t.Errorf("a workload's user wrote %s", path)
		}
	}
	wrong := as("vm")
	wrong.PasswordFile = filepath.Join(dir, "agent")
	if c, err := wrong.Client(t.Context()); err == nil {
		c.Close()
		t.Error("a wrong password was taken")
	}
}

var east = &mesh.Cluster{
	ID: "east", Region: "east", TrustDomain: spiffeid.RequireTrustDomainFromString("east.test"), State: mesh.ClusterActive,
	Networks: []mesh.NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
}

func runSource(t *testing.T, c etcd.Connection, table *own.Table) {
	source, err := etcd.New(etcd.Config{Connection: c, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Metrics: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	never := make(chan struct{})
	sink := clusteragent.NewSink(table, own.Etcd, func() (*mesh.Cluster, <-chan struct{}) { return east, never })
	background(t, func(ctx context.Context) error { return source.Run(ctx, sink) })
	select {
	case <-source.Synced():
	case <-time.After(20 * time.Second):
		t.Fatalf("not synced: %+v", source.Status())
	}
}

func hold(t *testing.T, client *clientv3.Client, records etcd.Records) {
	holder := &etcd.Holder{Client: client, Root: root, TTL: 5 * time.Second, Exclusive: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	background(t, func(ctx context.Context) error { return holder.Run(ctx, watch.New(records)) })
}

func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func users(t *testing.T, admin *clientv3.Client) {
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	grant := func(role, folder string, kind clientv3.PermissionType) {
		must(admin.RoleGrantPermission(ctx, role, root+folder, clientv3.GetPrefixRangeEnd(root+folder), kind))
	}
	for _, user := range []string{"root", "agent", "vm"} {
		must(admin.RoleAdd(ctx, user))
		must(admin.UserAdd(ctx, user, user+"-secret"))
		must(admin.UserGrantRole(ctx, user, user))
	}
	grant("agent", "", clientv3.PermissionType(clientv3.PermRead))
	grant("agent", "sidecars/", clientv3.PermissionType(clientv3.PermReadWrite))
	grant("vm", "endpoints/shop/catalog/", clientv3.PermissionType(clientv3.PermReadWrite))
	grant("vm", "sidecars/", clientv3.PermissionType(clientv3.PermRead)) // for this test to look
	must(admin.AuthEnable(ctx))
}

// clientCertificate signs itself, and is good for the server and for clients.
func clientCertificate(t *testing.T, dir string) (certificate, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _ := net.SplitHostPort(realdeps.Address())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"test"}}, IPAddresses: []net.IP{net.ParseIP(host)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for path, block := range map[string]*pem.Block{certificate: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}
