package spire

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func entryOf(path, parent string, names ...string) *types.Entry {
	return &types.Entry{
		Id: path, SpiffeId: &types.SPIFFEID{TrustDomain: "east.mesh", Path: path}, ParentId: &types.SPIFFEID{TrustDomain: "east.mesh", Path: parent}, FederatesWith: names,
	}
}

// looking is a reconciliation in the middle of a scan that wants west.mesh everywhere below paths.
func looking(paths ...string) *reconciliation {
	return &reconciliation{
		Client:  &Client{scan: &scan{names: []string{"west.mesh"}, touched: map[string]*touch{}}},
		desired: Desired{Paths: paths},
	}
}

func TestWhichEntriesFederate(t *testing.T) {
	nested := entryOf("/nested", "/node")
	nested.Downstream = true
	for _, row := range []struct {
		entry *types.Entry
		paths []string
		want  []string // nil: stays
	}{
		{entryOf("/ns/shop/sa/cart", "/node"), nil, []string{"west.mesh"}},
		{entryOf("/ns/shop/sa/cart", "/node", "theirs.mesh"), nil, []string{"theirs.mesh", "west.mesh"}},
		{entryOf("/ns/shop/sa/cart", "/node", "west.mesh", "theirs.mesh"), nil, nil},
		{entryOf("/node", "/spire/server"), nil, nil},
		{entryOf("/spire/agent/x", "/node"), nil, nil},
		{nested, nil, nil},
		{entryOf("/ns/shop/sa/cart", "/node"), []string{"/ns/shop"}, []string{"west.mesh"}},
		{entryOf("/ns/shop", "/node"), []string{"/ns/shop/"}, []string{"west.mesh"}},
		{entryOf("/ns/shopping", "/node"), []string{"/ns/shop"}, nil},
		{entryOf("/ns/pay", "/node"), []string{"/ns/shop", "/ns/pay"}, []string{"west.mesh"}},
	} {
		change := looking(row.paths...).extend(row.entry, nil, time.Unix(0, 0))
		if got := change.GetFederatesWith(); !slices.Equal(got, row.want) {
			t.Errorf("%s %q below %q: %q, want %q", row.entry.Id, row.entry.FederatesWith, row.paths, got, row.want)
		}
	}
}

// Somebody who takes the domain out each time is not fought every few seconds, and is told of.
func TestContestedEntryIsLeftAlone(t *testing.T) {
	var before *touch
	var changes []time.Duration
	contested := 0
	for at := time.Duration(0); at < 10*time.Minute; at += 5 * time.Second {
		r := looking()
		if r.extend(entryOf("/ns/shop/sa/cart", "/node"), before, time.Unix(0, 0).Add(at)) != nil {
			changes = append(changes, at)
		}
		before = r.scan.touched["/ns/shop/sa/cart"]
		contested += len(r.scan.contested)
	}
	if len(changes) > 10 || len(changes) < 6 || changes[len(changes)-1]-changes[len(changes)-2] < 2*time.Minute {
		t.Errorf("changed at %v", changes)
	}
	if contested < 100 {
		t.Errorf("told %d times", contested)
	}
}

func TestScanIsPaced(t *testing.T) {
	s := &scan{names: []string{"a"}, at: time.Unix(100, 0), took: 2 * time.Second}
	for _, row := range []struct {
		names []string
		took  time.Duration
		after time.Duration
		want  bool
	}{
		{[]string{"a"}, 2 * time.Second, 39 * time.Second, false},
		{[]string{"a"}, 2 * time.Second, 40 * time.Second, true},
		{[]string{"a", "b"}, 2 * time.Second, 0, true},
		{[]string{"a"}, 20 * time.Millisecond, 0, true},
		{[]string{"a"}, time.Hour, 5 * time.Minute, true},
	} {
		s.took = row.took
		if got := s.due(row.names, nil, s.at.Add(row.after)); got != row.want {
			t.Errorf("%+v: %v", row, got)
		}
	}
}

func TestExplain(t *testing.T) {
	dialing := func(why string) error {
		return fmt.Errorf("own bundle: %w", status.Error(codes.DeadlineExceeded, `latest balancer error: connection error: desc = "transport: Error while dialing: `+why+`"`))
	}
	for _, row := range []struct {
		address string
		err     error
		want    string
	}{
		{"unix:///s", dialing("dial unix /s: connect: no such file or directory"), "SPIRE server unix:///s: own bundle: dial unix /s: connect: no such file or directory: does it run, and is this its socket"},
		{"unix:///s", dialing("dial unix /s: connect: permission denied"), "run the agent with that group"},
		{"dns:///s:1", dialing("dial tcp s:1: connect: connection refused"), "SPIRE server s:1: own bundle: dial tcp s:1: connect: connection refused: does it run, and is this its address"},
		{"dns:///s:1", status.Error(codes.PermissionDenied, "authorization denied for method /x"), "SPIRE server s:1: authorization denied for method /x: over TCP the entry of the agent's identity must be marked admin"},
		{"dns:///s:1", status.Error(codes.Unavailable, `connection error: desc = "transport: authentication handshake failed: refused: peer is x"`), "handshake failed: refused: peer is x: is it the SPIRE server of this trust domain?"},
		{"dns:///s:1", errors.New("odd"), "SPIRE server s:1: odd"},
	} {
		c := &Client{address: row.address}
		if got := c.explain(row.err); !strings.Contains(got.Error(), row.want) || !errors.Is(got, row.err) {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}
