package peer

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/trusttest"
)

var plane = spiffeid.RequireTrustDomainFromString("periplus.global")

func TestPlane(t *testing.T) {
	for id, want := range map[string]string{ // the error; "" is accepted
		"spiffe://periplus.global/controller/a":    "",
		"spiffe://periplus.global/agent/a":         "not a controller",
		"spiffe://periplus.global/operator/a":      "not a controller",
		"spiffe://west.mesh/controller/a":          "trust domain",
		"spiffe://periplus.global/ns/shop/sa/cart": "not one of the control plane",
		"spiffe://periplus.global":                 "not one of the control plane",
	} {
		name, err := Identity{ID: spiffeid.RequireFromString(id)}.Plane(plane, mesh.RoleController)
		if want == "" && (err != nil || name != "a") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %q, %v", id, name, err)
		}
	}
	only := OnlyController(plane, "a")
	if only(spiffeid.RequireFromString("spiffe://periplus.global/controller/a")) != nil || only(spiffeid.RequireFromString("spiffe://periplus.global/controller/b")) == nil {
		t.Error("another replica is taken for the one that is meant")
	}
}

func state(t *testing.T, path string) tls.ConnectionState {
	leaf := trusttest.NewCA(plane.Name()).SVID(path, time.Hour).Certificate.Leaf
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
}

func from(s tls.ConnectionState) context.Context {
	return grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: &net.TCPAddr{Port: 1}, AuthInfo: credentials.TLSInfo{State: s}})
}

func TestFromContext(t *testing.T) {
	for what, ctx := range map[string]context.Context{
		"no peer": context.Background(), "no certificate": from(tls.ConnectionState{}),
		"plain text": grpcpeer.NewContext(context.Background(), &grpcpeer.Peer{Addr: &net.TCPAddr{}}),
	} {
		if _, err := FromContext(ctx); !errors.Is(err, trust.ErrUnverified) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := FromContext(from(state(t, "/agent/west"))); err != nil || got.ID.Path() != "/agent/west" || got.Leaf == nil {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOnlyOperatorsAreAuthors(t *testing.T) {
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	if _, err := WithOperator(request, plane); err == nil {
		t.Error("no TLS")
	}
	s := state(t, "/agent/west")
	request.TLS = &s
	if _, err := WithOperator(request, plane); err == nil {
		t.Error("an agent")
	}
	s = state(t, "/operator/ada")
	with, err := WithOperator(request, plane)
	if err != nil {
		t.Fatal(err)
	}
	if author, ok := Author(with.Context()); !ok || author != "spiffe://periplus.global/operator/ada" {
		t.Errorf("%q, %v", author, ok)
	}
	if _, ok := Author(request.Context()); ok {
		t.Error("an author out of nothing")
	}
}

// issued is a certificate for path, signed by a replica's intermediate with whatever it signs: the replica is hostile.
func issued(t *testing.T, dir, path string) []*x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	leaf := trusttest.NewCA(plane.Name()).SVID(path, time.Hour).Certificate.Leaf
	der, err := x509.CreateCertificate(rand.Reader, leaf, pair.Leaf, leaf.PublicKey, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{leaf, pair.Leaf}
}

// T8: a replica, or who has its keys after it was removed, speaks for itself alone.
func TestReplicaIssuesForItselfAndAgentsOnly(t *testing.T) {
	dir := t.TempDir()
	if err := pki.Init(dir, plane.Name(), []string{"a", "b"}, nil); err != nil {
		t.Fatal(err)
	}
	for path, refused := range map[string]bool{"/controller/a": false, "/agent/west": false, "/controller/b": true, "/operator/ada": true} {
		s := tls.ConnectionState{PeerCertificates: issued(t, filepath.Join(dir, "a"), path)}
		identity, err := FromContext(from(s))
		if (err != nil) != refused || identity.Authority != "a" {
			t.Errorf("%s by a call: %v, issued by %q", path, err, identity.Authority)
		}
		request := httptest.NewRequest(http.MethodPost, "/", nil)
		request.TLS = &s
		if _, err := WithOperator(request, plane); err == nil {
			t.Errorf("%s is taken for an operator", path)
		}
		config := Bound(&tls.Config{VerifyConnection: func(tls.ConnectionState) error { return nil }})
		if err := config.VerifyConnection(s); (err != nil) != refused {
			t.Errorf("%s by a connection: %v", path, err)
		}
		gate := &Gate{Admit: func(Identity) error { return nil }}
		_, err = gate.Unary(from(s), nil, nil, func(context.Context, any) (any, error) { return nil, nil })
		if (err != nil) != refused {
			t.Errorf("%s at the gate: %v", path, err)
		}
	}
}

type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

// A client that is refused later loses its stream without doing anything.
func TestGateEndsLivingStreams(t *testing.T) {
	refused := make(chan struct{})
	gate := &Gate{Every: time.Millisecond, Admit: func(Identity) error {
		select {
		case <-refused:
			return errors.New("revoked")
		default:
			return nil
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gate.Run(ctx) }()
	err := gate.Stream(nil, &stream{ctx: from(state(t, "/agent/west"))}, nil, func(_ any, s grpc.ServerStream) error {
		close(refused)
		<-s.Context().Done()
		return nil
	})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the stream ended with %v", err)
	}
	handle := func(context.Context, any) (any, error) { return "done", nil }
	if _, err := gate.Unary(from(state(t, "/agent/west")), nil, nil, handle); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a call: %v", err)
	}
	if _, err := gate.Unary(from(tls.ConnectionState{}), nil, nil, handle); err != nil {
		t.Errorf("a client without certificate is the handler's matter: %v", err)
	}
	if cancel(); <-ended != nil || len(gate.streams) != 0 {
		t.Errorf("%d streams are left", len(gate.streams))
	}
}

// Those who left are forgotten; a replica that is joining knows no members yet, and must not cut itself off.
func TestPoolRetains(t *testing.T) {
	pool := &Pool{Source: trusttest.NewCA(plane.Name()).Source("/controller/a", time.Hour), Domain: plane}
	joining, member, gone := target{"", "127.0.0.1:1"}, target{"b", "127.0.0.1:2"}, target{"c", "127.0.0.1:3"}
	for _, to := range []target{joining, member, gone} {
		if _, err := pool.connection(to); err != nil {
			t.Fatal(err)
		}
	}
	pool.Retain(map[string]bool{"b": true})
	if pool.connections[joining] == nil || pool.connections[member] == nil || pool.connections[gone] != nil {
		t.Errorf("kept are %v", pool.connections)
	}
	if pool.Close(); len(pool.connections) != 0 {
		t.Errorf("%d connections are left", len(pool.connections))
	}
	if _, err := pool.connection(member); !errors.Is(err, ErrUnreachable) || len(pool.connections) != 0 {
		t.Errorf("after its end the pool connects: %v", err)
	}
}

func TestPoolSaysUnreachable(t *testing.T) {
	pool := &Pool{
		Source: trusttest.NewCA(plane.Name()).Source("/controller/a", time.Hour), Domain: plane,
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("down") },
	}
	defer pool.Close()
	if _, err := pool.Connect(t.Context(), "b", "127.0.0.1:1"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if len(pool.connections) != 0 {
		t.Error("a connection that failed is kept")
	}
}
