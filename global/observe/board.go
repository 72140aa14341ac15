package observe

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// ConnectedFor is how long a session on another replica is believed in after that replica was last heard.
const ConnectedFor = 5 * time.Second

// Session describes an agent's stream.
type Session struct {
	Cluster      mesh.ClusterID
	Instance     string // of the agent's process
	AgentVersion string
	// CredentialExpires is the end of the agent's certificate.
	CredentialExpires time.Time
}

// Seen is what is known of one cluster.
type Seen struct {
	Session
	Connected bool
	Replica   string        // whose observation it is
	Age       time.Duration // since the agent was last heard
	Load      *pb.LoadReport
	LoadAge   time.Duration
}

// Board is the observations of one replica and, as they shared them, of the others. Safe for concurrent use.
type Board struct {
	replica string
	place   Place

	mu     sync.Mutex
	own    map[mesh.ClusterID]*entry            // guarded by mu
	others map[string]map[mesh.ClusterID]*entry // guarded by mu; by replica
	heard  map[string]heard                     // guarded by mu; by replica
}

type entry struct {
	session   Session
	connected bool
	heardAt   time.Time
	load      *pb.LoadReport
	loadAt    time.Time
}

type heard struct {
	at      time.Time
	applied uint64
	place   Place
}

// Place is where a replica runs and where people look at it.
type Place struct {
	Region    string
	Dashboard string // URL; "" if it serves none
}

// NewBoard makes the board of a replica.
func NewBoard(replica string, place Place) *Board {
	return &Board{
		replica: replica, place: place, own: make(map[mesh.ClusterID]*entry),
		others: make(map[string]map[mesh.ClusterID]*entry), heard: make(map[string]heard),
	}
}

// ErrDuplicate says that another process acts as the cluster's agent.
type ErrDuplicate struct {
	Session Session
	Replica string
}

func (e *ErrDuplicate) Error() string {
	return fmt.Sprintf("another agent of cluster %q (instance %q) is connected to replica %q; stop it first, or wait until it is gone", e.Session.Cluster, e.Session.Instance, e.Replica)
}

// Stream is one agent's stream on the board, between Connect and Disconnect.
type Stream struct {
	cluster mesh.ClusterID
	entry   *entry
}

// Connect records an agent's stream; it must be ended with Disconnect. While another instance is connected, here or
// elsewhere, it is refused with [*ErrDuplicate]. The same instance may come again: its old stream is a ghost, whose end
// says nothing of the new one.
func (b *Board) Connect(s Session, now time.Time) (Stream, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.own[s.Cluster]; e != nil && e.connected && e.session.Instance != s.Instance {
		return Stream{}, &ErrDuplicate{e.session, b.replica}
	}
	for replica, entries := range b.others {
		e := entries[s.Cluster]
		if e != nil && e.connected && e.session.Instance != s.Instance && now.Sub(b.heard[replica].at) < ConnectedFor {
			return Stream{}, &ErrDuplicate{e.session, replica}
		}
	}
	e := &entry{session: s, connected: true, heardAt: now}
	if old := b.own[s.Cluster]; old != nil {
		e.load, e.loadAt = old.load, old.loadAt
	}
	b.own[s.Cluster] = e
	return Stream{s.Cluster, e}, nil
}

// Disconnect records the end of a stream, unless a newer one has taken its place.
func (b *Board) Disconnect(s Stream, now time.Time) {
	b.update(s.cluster, func(e *entry) {
		if e == s.entry {
			e.connected, e.heardAt = false, now
		}
	})
}

// Heard records a sign of life.
func (b *Board) Heard(cluster mesh.ClusterID, now time.Time) {
	b.update(cluster, func(e *entry) { e.heardAt = now })
}

// Load records a load report, which must not be written afterwards.
func (b *Board) Load(cluster mesh.ClusterID, report *pb.LoadReport, now time.Time) {
	b.update(cluster, func(e *entry) { e.load, e.loadAt, e.heardAt = report, now, now })
}

func (b *Board) update(cluster mesh.ClusterID, change func(*entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.own[cluster]; e != nil {
		change(e)
	}
}

// View returns the newest observation of each cluster, a connected one before others.
func (b *Board) View(now time.Time) map[mesh.ClusterID]Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[mesh.ClusterID]Seen)
	add := func(replica string, entries map[mesh.ClusterID]*entry, fresh bool) {
		for id, e := range entries {
			seen := e.seen(replica, now)
			seen.Connected = seen.Connected && fresh
			if old, ok := out[id]; !ok || better(seen, old) {
				out[id] = merge(seen, old)
			} else {
				out[id] = merge(old, seen)
			}
		}
	}
	add(b.replica, b.own, true)
	for replica, entries := range b.others {
		add(replica, entries, now.Sub(b.heard[replica].at) < ConnectedFor)
	}
	return out
}

func (e *entry) seen(replica string, now time.Time) Seen {
	return Seen{
		Session: e.session, Connected: e.connected, Replica: replica, Age: now.Sub(e.heardAt), Load: e.load, LoadAge: now.Sub(e.loadAt),
	}
}

func better(a, b Seen) bool {
	if a.Connected != b.Connected {
		return a.Connected
	}
	return a.Age < b.Age
}

// merge gives the winner the newer load report.
func merge(winner, loser Seen) Seen {
	if winner.Load == nil || loser.Load != nil && loser.LoadAge < winner.LoadAge {
		winner.Load, winner.LoadAge = loser.Load, loser.LoadAge
	}
	return winner
}

// maxShareBytes is what one message to another replica holds; gRPC takes 4 MiB.
const maxShareBytes = 7 << 19

// Observations is what this replica shares, in one message or more: each tells of every session, and has as many of the
// load reports as fit.
func (b *Board) Observations(now time.Time, applied uint64) []*pb.Observations {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := slices.Sorted(maps.Keys(b.own))
	message := b.sessions(ids, now, applied)
	out, size := []*pb.Observations{message}, proto.Size(message)
	bare := size
	for i, id := range ids {
		e := b.own[id]
		if e.load == nil {
			continue
		}
		load := proto.Size(e.load)
		if size > bare && size+load > maxShareBytes {
			message = b.sessions(ids, now, applied)
			out, size = append(out, message), bare
		}
		message.Clusters[i].Load, message.Clusters[i].LoadAgeMs = e.load, now.Sub(e.loadAt).Milliseconds()
		size += load
	}
	return out
}

// sessions is a message without load reports.
func (b *Board) sessions(ids []mesh.ClusterID, now time.Time, applied uint64) *pb.Observations {
	out := &pb.Observations{Replica: b.replica, AppliedIndex: applied, Region: b.place.Region, Dashboard: b.place.Dashboard}
	for _, id := range ids {
		e := b.own[id]
		out.Clusters = append(out.Clusters, &pb.ClusterObservation{
			Cluster: string(id), Connected: e.connected, AgeMs: now.Sub(e.heardAt).Milliseconds(), AgentVersion: e.session.AgentVersion,
			CredentialExpiresAtMs: e.session.CredentialExpires.UnixMilli(), Instance: e.session.Instance,
		})
	}
	return out
}

// Receive replaces what replica shared before; a load report stays until a newer one comes.
func (b *Board) Receive(replica string, o *pb.Observations, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entries := make(map[mesh.ClusterID]*entry, len(o.GetClusters()))
	for _, c := range o.GetClusters() {
		id := mesh.ClusterID(c.GetCluster())
		e := &entry{
			session: Session{
				Cluster: id, Instance: c.GetInstance(), AgentVersion: c.GetAgentVersion(),
				CredentialExpires: time.UnixMilli(c.GetCredentialExpiresAtMs()),
			},
			connected: c.GetConnected(), heardAt: now.Add(-millis(c.GetAgeMs())), load: c.GetLoad(), loadAt: now.Add(-millis(c.GetLoadAgeMs())),
		}
		if old := b.others[replica][id]; e.load == nil && old != nil {
			e.load, e.loadAt = old.load, old.loadAt
		}
		entries[id] = e
	}
	b.others[replica], b.heard[replica] = entries, heard{now, o.GetAppliedIndex(), Place{o.GetRegion(), o.GetDashboard()}}
}

func millis(n int64) time.Duration { return time.Duration(max(n, 0)) * time.Millisecond }

// Replica says how long ago another replica was heard and what it had applied then; false if never.
func (b *Board) Replica(id string, now time.Time) (age time.Duration, applied uint64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h, ok := b.heard[id]
	return now.Sub(h.at), h.applied, ok
}

// Place of a replica, the own one included; zero if it was never heard.
func (b *Board) Place(id string) Place {
	if id == b.replica {
		return b.place
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard[id].place
}

// Forget drops replicas and clusters that exist no more.
func (b *Board) Forget(replica func(string) bool, cluster func(mesh.ClusterID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.others {
		if !replica(id) {
			delete(b.others, id)
			delete(b.heard, id)
		}
	}
	for id, e := range b.own {
		if !cluster(id) && !e.connected {
			delete(b.own, id)
		}
	}
}
