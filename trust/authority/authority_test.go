package authority_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/authority"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is one authority of a test, in its own short folder.
type fixture struct {
	config authority.Config
	stop   func() error
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pa") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func configure(t *testing.T, domain string) authority.Config {
	dir := shortDir(t)
	return authority.Config{
		TrustDomain:    spiffeid.RequireTrustDomainFromString(domain),
		DataDir:        filepath.Join(dir, "data"),
		ServerSocket:   filepath.Join(dir, "server.sock"),
		WorkloadSocket: filepath.Join(dir, "agent.sock"),
		Log:            slog.New(slog.DiscardHandler),
	}
}

func start(t *testing.T, c authority.Config) *fixture {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- authority.Run(ctx, c) }()
	f := &fixture{config: c}
	f.stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *fixture) dial(t *testing.T, socket string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, MaxDelay: 50 * time.Millisecond, Multiplier: 2}}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (f *fixture) entries(t *testing.T) entryv1.EntryClient {
	return entryv1.NewEntryClient(f.dial(t, f.config.ServerSocket))
}

// entry makes one of this process's user.
func (f *fixture) entry(path string) *types.Entry {
	domain := f.config.TrustDomain.Name()
	return &types.Entry{
		SpiffeId: &types.SPIFFEID{TrustDomain: domain, Path: path},
		ParentId: &types.SPIFFEID{TrustDomain: domain, Path: "/node"},
		Selectors: []*types.Selector{
			{Type: "unix", Value: fmt.Sprintf("uid:%d", os.Getuid())},
		},
	}
}

func (f *fixture) create(t *testing.T, entries ...*types.Entry) []string {
	t.Helper()
	answer, err := f.entries(t).BatchCreateEntry(t.Context(), &entryv1.BatchCreateEntryRequest{Entries: entries})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, r := range answer.Results {
		if r.Status.Code != 0 {
			t.Fatalf("create: %v", r.Status)
		}
		ids = append(ids, r.Entry.Id)
	}
	return ids
}

func (f *fixture) watch(t *testing.T) *trust.WorkloadSource {
	t.Helper()
	source, err := trust.Watch(t.Context(), "unix://"+f.config.WorkloadSocket, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

func TestWorkloadGetsItsIdentity(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.create(t, f.entry("/ns/shop/sa/cart"))
	material, _ := f.watch(t).Get()
	if got := material.ID.String(); got != "spiffe://east.mesh/ns/shop/sa/cart" {
		t.Fatalf("identity %s", got)
	}
	leaf := material.Certificate.Leaf
	if id, err := material.Verify([]*x509.Certificate{leaf}); err != nil || id != material.ID {
		t.Fatalf("own certificate: %v, %v", id, err)
	}
	if life := time.Until(leaf.NotAfter); life < 59*time.Minute || life > 61*time.Minute {
		t.Fatalf("lives %v, want about an hour", life)
	}
}

// The selectors are those of the kernel: each of the three kinds, alone and together.
func TestAttestation(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	uid, gid, path := fmt.Sprintf("uid:%d", os.Getuid()), fmt.Sprintf("gid:%d", os.Getgid()), "path:"+exe
	for i, row := range []struct {
		selectors []string
		want      bool
	}{
		{[]string{uid}, true}, {[]string{gid}, true}, {[]string{path}, true}, {[]string{uid, gid, path}, true},
		{[]string{"uid:54321"}, false}, {[]string{"gid:54321"}, false}, {[]string{"path:/bin/other"}, false},
		{[]string{uid, "path:/bin/other"}, false}, {[]string{path, "uid:54321"}, false},
	} {
		e := f.entry(fmt.Sprintf("/row/%d", i))
		e.Selectors = nil
		for _, s := range row.selectors {
			e.Selectors = append(e.Selectors, &types.Selector{Type: "unix", Value: s})
		}
		id := f.create(t, e)
		got, err := f.fetch(t)
		if row.want && (err != nil || len(got.Svids) != 1 || got.Svids[0].SpiffeId != "spiffe://east.mesh"+e.SpiffeId.Path) {
			t.Errorf("%v: got %v, %v", row.selectors, got, err)
		}
		if !row.want && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%v: got %v, want PermissionDenied", row.selectors, err)
		}
		f.remove(t, id...)
	}
}

func (f *fixture) fetch(t *testing.T) (*workload.X509SVIDResponse, error) {
	t.Helper()
	client := workload.NewSpiffeWorkloadAPIClient(f.dial(t, f.config.WorkloadSocket))
	stream, err := client.FetchX509SVID(withHeader(t.Context()), &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return stream.Recv()
}

func withHeader(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

func (f *fixture) remove(t *testing.T, ids ...string) {
	t.Helper()
	answer, err := f.entries(t).BatchDeleteEntry(t.Context(), &entryv1.BatchDeleteEntryRequest{Ids: ids})
	if err != nil || answer.Results[0].Status.Code != 0 {
		t.Fatalf("delete: %v, %v", answer, err)
	}
}

func TestSeveralIdentitiesInOrder(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	a, b := f.entry("/a"), f.entry("/b")
	a.Id, b.Id, b.Hint = "2", "1", "first"
	f.create(t, a, b)
	for range 3 {
		got, err := f.fetch(t)
		if err != nil || len(got.Svids) != 2 || got.Svids[0].SpiffeId != "spiffe://east.mesh/b" || got.Svids[0].Hint != "first" {
			t.Fatalf("got %v, %v", got, err)
		}
	}
}

func TestSecurityHeaderIsDemanded(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.create(t, f.entry("/a"))
	client := workload.NewSpiffeWorkloadAPIClient(f.dial(t, f.config.WorkloadSocket))
	stream, err := client.FetchX509SVID(t.Context(), &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("got %v, want InvalidArgument", err)
	}
	if _, err := client.FetchJWTSVID(withHeader(t.Context()), &workload.JWTSVIDRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatalf("got %v, want Unimplemented", err)
	}
}

// An entry that comes, changes and goes is seen on the open stream.
func TestStreamFollowsEntries(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	ids := f.create(t, f.entry("/a"))
	client := workload.NewSpiffeWorkloadAPIClient(f.dial(t, f.config.WorkloadSocket))
	stream, err := client.FetchX509SVID(withHeader(t.Context()), &workload.X509SVIDRequest{})
	if err != nil {
		t.Fatal(err)
	}
	receive := func() []string {
		t.Helper()
		answer, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range answer.Svids {
			got = append(got, s.SpiffeId)
		}
		slices.Sort(got)
		return got
	}
	if got := receive(); len(got) != 1 {
		t.Fatalf("got %v", got)
	}
	ids = append(ids, f.create(t, f.entry("/b"))...)
	if got := receive(); !slices.Equal(got, []string{"spiffe://east.mesh/a", "spiffe://east.mesh/b"}) {
		t.Fatalf("got %v", got)
	}
	f.remove(t, ids[0])
	if got := receive(); !slices.Equal(got, []string{"spiffe://east.mesh/b"}) {
		t.Fatalf("got %v", got)
	}
	f.remove(t, ids[1])
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Fatalf("got %v, want PermissionDenied", err)
	}
}

// Entries, keys and the sequence number outlive the process, and a watching workload does not notice its absence.
func TestRestart(t *testing.T) {
	c := configure(t, "east.mesh")
	f := start(t, c)
	f.create(t, f.entry("/a"))
	source := f.watch(t)
	before, _ := source.Get()
	if err := f.stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if during, _ := source.Get(); during != before {
		t.Fatal("material went with the authority")
	}
	f = start(t, c)
	answer, err := f.fetch(t)
	if err != nil || answer.Svids[0].SpiffeId != before.ID.String() {
		t.Fatalf("after restart: %v, %v", answer, err)
	}
	leaf, err := x509.ParseCertificate(answer.Svids[0].X509Svid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := before.Verify([]*x509.Certificate{leaf}); err != nil {
		t.Fatalf("the root changed over a restart: %v", err)
	}
	_, next := source.Get()
	if now, _ := source.Get(); now == before {
		select {
		case <-next:
		case <-time.After(5 * time.Second):
			t.Fatal("the workload did not find the authority again within 5 s")
		}
	}
	info, err := os.Stat(filepath.Join(c.DataDir, "authority.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info.Mode(), err)
	}
}

func TestRunRefuses(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(*authority.Config)
		want string
	}{
		"long socket path": {func(c *authority.Config) { c.WorkloadSocket += strings.Repeat("x", 108) }, "107"},
		"same sockets":     {func(c *authority.Config) { c.WorkloadSocket = c.ServerSocket }, "must differ"},
		"long SVID life":   {func(c *authority.Config) { c.CATTL, c.SVIDTTL = time.Hour, time.Hour }, "longer root life"},
		"no trust domain":  {func(c *authority.Config) { c.TrustDomain = spiffeid.TrustDomain{} }, "trust domain"},
		"a file in the way": {func(c *authority.Config) {
			os.WriteFile(c.WorkloadSocket, nil, 0o600)
		}, "not a socket"},
		"state of another domain": {func(c *authority.Config) {
			os.MkdirAll(c.DataDir, 0o700)
			os.WriteFile(filepath.Join(c.DataDir, "authority.json"), []byte(`{"trust_domain":"west.mesh"}`), 0o600)
		}, "west.mesh"},
		"broken state": {func(c *authority.Config) {
			os.MkdirAll(c.DataDir, 0o700)
			os.WriteFile(filepath.Join(c.DataDir, "authority.json"), []byte(`{`), 0o600)
		}, "state"},
	} {
		t.Run(name, func(t *testing.T) {
			c := configure(t, "east.mesh")
			row.edit(&c)
			if err := authority.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
		})
	}
}

func TestSocketsOfOthers(t *testing.T) {
	f := start(t, configure(t, "east.mesh"))
	f.create(t, f.entry("/a"))
	c := f.config
	if err := authority.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another process uses") {
		t.Fatalf("same folder: %v", err)
	}
	c.DataDir += "2"
	if err := authority.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another process serves") {
		t.Fatalf("live socket: %v", err)
	}
	f.stop()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.WorkloadSocket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // what a killed process leaves behind
	f = start(t, f.config)
	if _, err := f.fetch(t); err != nil {
		t.Fatalf("stale socket: %v", err)
	}
}
