package xds

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// rig is a server session and a client session with what is under way between them.
type rig struct {
	state    world
	clock    int // content of the newest change; contents only grow
	server   *ServerSession[world]
	client   *ClientSession
	applied  world
	highest  world      // the newest content that was ever applied, for "never goes back"
	toClient []Response // sent, not received yet
	toServer []Request
}

func newRig() *rig {
	r := &rig{state: world{}, applied: world{}, highest: world{}, client: NewClientSession(Cluster, MeshObject)}
	r.reconnect()
	return r
}

// reconnect moves the client to another replica. What was under way is lost.
func (r *rig) reconnect() {
	r.server = NewDeltaSession(worldCatalog{}, r.state)
	r.toClient, r.toServer = nil, r.client.Open()
}

func (r *rig) pump() {
	for response, ok := r.server.Next(); ok; response, ok = r.server.Next() {
		r.toClient = append(r.toClient, response)
	}
}

func (r *rig) mutate(t Type, name string, remove bool) {
	r.state = r.state.clone()
	if remove {
		delete(r.state[t], name)
	} else {
		r.clock++
		r.state.set(t, name, fmt.Sprintf("%06d", r.clock))
	}
	r.server.Advance(r.state)
}

// serve has the server take one request.
func (r *rig) serve() {
	if len(r.toServer) == 0 {
		return
	}
	request := r.toServer[0]
	r.toServer = r.toServer[1:]
	if _, err := r.server.Request(request); err != nil {
		panic(err)
	}
	r.pump()
}

// receive has the client take one response, or reject it.
func (r *rig) receive(reject bool) error {
	if len(r.toClient) == 0 {
		return nil
	}
	response := r.toClient[0]
	r.toClient = r.toClient[1:]
	if reject {
		r.toServer = append(r.toServer, r.client.Reject(response.Type, response.Nonce, errors.New("no")))
		return nil
	}
	versions := make(map[string]string)
	for _, resource := range response.Resources {
		if !r.client.Wants(response.Type, resource.Name) {
			continue
		}
		content := bodyOf(resource, response.Type)
		if content < r.highest[response.Type][resource.Name] {
			return fmt.Errorf("%s went back from %s to %s", resource.Name, r.highest[response.Type][resource.Name], content)
		}
		r.applied.set(response.Type, resource.Name, content)
		r.highest.set(response.Type, resource.Name, content)
		versions[resource.Name] = resource.Version.String()
	}
	for _, name := range response.Removed {
		delete(r.applied[response.Type], name)
	}
	r.toServer = append(r.toServer, r.client.Accept(response.Type, response.Nonce, versions, response.Removed))
	return nil
}

func (r *rig) subscribe(t Type, name string, add bool) {
	var request Request
	var changed bool
	if add {
		request, changed = r.client.Subscribe(t, []string{name}, nil)
	} else {
		request, changed = r.client.Subscribe(t, nil, []string{name})
		if !r.client.Wants(t, name) {
			delete(r.applied[t], name)
		}
	}
	if changed {
		r.toServer = append(r.toServer, request)
	}
}

// settle delivers everything that is under way.
func (r *rig) settle() error {
	r.pump()
	for i := 0; len(r.toServer)+len(r.toClient) > 0; i++ {
		if i > 10_000 {
			return errors.New("it never ends")
		}
		if err := r.receive(false); err != nil {
			return err
		}
		r.serve()
	}
	return nil
}

// wanted is what the client must have in the end.
func (r *rig) wanted() world {
	w := world{}
	for t, names := range r.state {
		for name, content := range names {
			if r.client.Wants(t, name) {
				w.set(t, name, content)
			}
		}
	}
	return w
}

func same(a, b world) bool {
	for _, t := range Types() {
		if !maps.Equal(a[t], b[t]) {
			return false
		}
	}
	return true
}

// TestConverges: whatever happens in whatever order, the client never goes back, ends with exactly what the server's
// state says, and is then sent nothing by a replica that has the same state.
func TestConverges(t *testing.T) {
	types := []Type{Cluster, Endpoints, MeshObject}
	rapid.Check(t, func(t *rapid.T) {
		r := newRig()
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			typ := rapid.SampledFrom(types).Draw(t, "type")
			name := strconv.Itoa(rapid.IntRange(0, 4).Draw(t, "name"))
			var err error
			switch rapid.IntRange(0, 9).Draw(t, "op") {
			case 0, 1, 2:
				r.mutate(typ, name, rapid.Bool().Draw(t, "remove"))
			case 3:
				r.pump()
			case 4, 5:
				r.serve()
			case 6, 7:
				err = r.receive(rapid.IntRange(0, 5).Draw(t, "reject") == 0)
			case 8:
				r.subscribe(typ, name, rapid.Bool().Draw(t, "add"))
			case 9:
				if rapid.IntRange(0, 3).Draw(t, "lost") == 0 {
					r.reconnect()
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		r.reconnect() // a rejected version is offered again on a new stream
		if err := r.settle(); err != nil {
			t.Fatal(err)
		}
		if !same(r.applied, r.wanted()) {
			t.Fatalf("the client has %v, the server %v", r.applied, r.wanted())
		}
		r.reconnect()
		for len(r.toServer) > 0 {
			r.serve()
		}
		for _, response := range r.toClient {
			if len(response.Resources) > 0 {
				t.Fatalf("sent again: %v", response)
			}
		}
	})
}

// TestConvergesWithoutReconnect: the same on one stream, nothing rejected.
func TestConvergesWithoutReconnect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := newRig()
		for range rapid.IntRange(0, 80).Draw(t, "steps") {
			typ := rapid.SampledFrom(Types()).Draw(t, "type")
			name := strconv.Itoa(rapid.IntRange(0, 4).Draw(t, "name"))
			switch rapid.IntRange(0, 5).Draw(t, "op") {
			case 0, 1:
				r.mutate(typ, name, rapid.Bool().Draw(t, "remove"))
			case 2:
				r.serve()
			case 3, 4:
				if err := r.receive(false); err != nil {
					t.Fatal(err)
				}
			case 5:
				r.subscribe(typ, name, rapid.Bool().Draw(t, "add"))
			}
		}
		if err := r.settle(); err != nil {
			t.Fatal(err)
		}
		if !same(r.applied, r.wanted()) {
			t.Fatalf("the client has %v, the server %v", r.applied, r.wanted())
		}
	})
}

// TestStateOfTheWorldConverges: the last complete answer is what exists.
func TestStateOfTheWorldConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		state, clock := world{}, 0
		session := NewStateSession(worldCatalog{}, state)
		var last Response
		ask := func(nonce string) {
			if _, err := session.Request(Request{Type: Cluster, Nonce: nonce}); err != nil {
				t.Fatal(err)
			}
		}
		next := func() {
			if r, ok := session.Next(); ok {
				last = r
			}
		}
		ask("")
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			state, clock = state.clone(), clock+1
			name := strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "name"))
			if rapid.Bool().Draw(t, "remove") {
				delete(state[Cluster], name)
			} else {
				state.set(Cluster, name, fmt.Sprintf("%06d", clock))
			}
			session.Advance(state)
			next()
			if rapid.Bool().Draw(t, "ack") {
				ask(last.Nonce)
			}
		}
		for range 3 {
			ask(last.Nonce)
			next()
		}
		got := make(map[string]string)
		for _, r := range last.Resources {
			got[r.Name] = bodyOf(r, Cluster)
		}
		if !maps.Equal(got, state[Cluster]) {
			t.Fatalf("the client has %v, the server %v", got, state[Cluster])
		}
	})
}

// TestChunks: no response is larger than the limit, and all arrives.
func TestChunks(t *testing.T) {
	state := world{}
	big := make([]byte, 300<<10)
	for i := range 20 {
		state.set(Endpoints, fmt.Sprint(i), string(big))
	}
	session := NewDeltaSession(worldCatalog{}, state)
	names := slices.Sorted(maps.Keys(state[Endpoints]))
	if _, err := session.Request(Request{Type: Endpoints, Subscribe: names}); err != nil {
		t.Fatal(err)
	}
	got := 0
	for r, ok := session.Next(); ok; r, ok = session.Next() {
		size := 0
		for _, resource := range r.Resources {
			size += len(resource.Delta)
		}
		if size > MaxResponseBytes {
			t.Errorf("response %s takes %d bytes", r.Nonce, size)
		}
		got += len(r.Resources)
		if _, err := session.Request(Request{Type: Endpoints, Nonce: r.Nonce}); err != nil {
			t.Fatal(err)
		}
	}
	if got != len(names) {
		t.Errorf("%d of %d resources arrived", got, len(names))
	}
}

// TestLimits: a client cannot make a session grow without end.
func TestLimits(t *testing.T) {
	names := func(prefix string, n int) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = prefix + strconv.Itoa(i)
		}
		return out
	}
	for _, c := range []struct {
		name     string
		requests []Request
		want     error
	}{
		{"as many as allowed", []Request{{Subscribe: names("a", MaxNames)}}, nil},
		{"too many at once", []Request{{Subscribe: names("a", MaxNames+1)}}, ErrTooManyNames},
		{"too many in two", []Request{{Subscribe: names("a", MaxNames)}, {Subscribe: []string{"b"}}}, ErrTooManyNames},
		{"the same again", []Request{{Subscribe: names("a", MaxNames)}, {Subscribe: []string{"a1"}}}, nil},
		{"too long", []Request{{Subscribe: []string{string(make([]byte, MaxNameBytes+1))}}}, ErrNameTooLong},
		{"beside a wildcard", []Request{{Subscribe: append(names("a", MaxNames+1), Wildcard)}}, ErrTooManyNames},
		{"to and fro", []Request{
			{Subscribe: names("a", MaxNames)}, {Unsubscribe: names("a", MaxNames)}, {Subscribe: names("b", MaxNames)},
			{Unsubscribe: names("b", MaxNames)}, {Subscribe: names("c", MaxNames)}, {Unsubscribe: names("c", MaxNames)},
			{Subscribe: names("d", MaxNames)}, {Unsubscribe: names("d", MaxNames)}, {Subscribe: names("e", MaxNames)},
		}, ErrTooManyNames},
		{"giving up what was never asked for", []Request{
			{Unsubscribe: names("a", MaxNames)}, {Unsubscribe: names("b", MaxNames)}, {Unsubscribe: names("c", MaxNames)},
			{Unsubscribe: names("d", MaxNames)}, {Unsubscribe: names("e", MaxNames)},
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			session := NewDeltaSession(worldCatalog{}, world{})
			var err error
			for _, r := range c.requests {
				r.Type = Endpoints
				if _, err = session.Request(r); err != nil {
					break
				}
			}
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}
