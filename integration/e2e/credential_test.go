package e2e

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// agentCredential is what an agent has on its disk: whoever reads it can be the agent.
func agentCredential(t *testing.T, cluster string) trust.Source {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(running.plan.Dir, "agent", cluster, "credential.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Plane        string
		Bundle, Key  []byte
		Certificates [][]byte
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	plane := spiffeid.RequireTrustDomainFromString(file.Plane)
	bundle, err := trust.ParseBundle(plane, file.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(file.Key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(file.Certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	id, err := trust.LeafID(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return trust.FixedSource(&trust.Material{
		ID:          id,
		Certificate: &tls.Certificate{Certificate: file.Certificates, PrivateKey: key.(crypto.Signer), Leaf: leaf},
		Bundles:     map[spiffeid.TrustDomain][]*x509.Certificate{plane: bundle.X509},
	})
}

// workloadIdentity lets the test be any workload of a trust domain: it gives its own binary an entry.
func workloadIdentity(t *testing.T, serverSocket, workloadSocket, id string) trust.Source {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := spiffeid.RequireFromString(id)
	client, err := spire.Dial(serverSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	parent := spiffeid.RequireFromPath(want.TrustDomain(), "/spire/agent/up")
	if err := client.EnsureEntries(t.Context(), []spire.Entry{{ID: want, ParentID: parent, Selectors: []string{"unix:path:" + self}}}); err != nil {
		t.Fatal(err)
	}
	source, err := trust.WatchAs(context.Background(), workloadSocket, want.Path(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

// ownIdentity is workloadIdentity in a cluster of the running mesh. It waits until the agent has found the new entry and
// made it federate with the control plane and the other clusters, which it looks for every few seconds.
func ownIdentity(t *testing.T, cluster, path string) trust.Source {
	t.Helper()
	dir := filepath.Join(running.plan.Dir, "authority", cluster)
	source := workloadIdentity(t, "unix://"+filepath.Join(dir, "server.sock"), "unix://"+filepath.Join(dir, "workload.sock"), "spiffe://"+cluster+".mesh"+path)
	within(t, 20*time.Second, "federation of the new entry", func() error {
		material, _ := source.Get()
		if domains, want := len(material.Bundles), len(running.plan.Clusters)+1; domains < want {
			return fmt.Errorf("trusts %d domains, want %d", domains, want)
		}
		return nil
	})
	return source
}

// connectAs opens a gRPC connection with the identity of source, from a loopback address of the caller's choice.
func connectAs(t *testing.T, address, from string, source trust.Source) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} // what is tested is the server's end
	if source != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			material, _ := source.Get()
			return material.Certificate, nil
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			dialer := net.Dialer{}
			if from != "" {
				dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
			}
			return dialer.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// controllers are host:port of every controller's mesh listener.
func (m *mesh) controllers() (out []string) {
	for _, address := range m.plan.AdminServers() {
		out = append(out, strings.Replace(address, ":15014", ":15012", 1))
	}
	return out
}
