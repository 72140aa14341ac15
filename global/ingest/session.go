package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/global/peer"
	"github.com/periplus-mesh/periplus/global/registry"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// maxObjects is the largest number of objects in one update.
const maxObjects = 5_000

const (
	helloTimeout = 10 * time.Second
	retryAfter   = 100 * time.Millisecond
)

// Stream is the server's end of AgentService.Report.
type Stream = grpc.BidiStreamingServer[pb.ReportRequest, pb.ReportResponse]

// session is one agent's stream. Its goroutine owns it.
type session struct {
	ingest  *Ingest
	stream  Stream
	ctx     context.Context // the stream's
	client  peer.Identity
	cluster mesh.ClusterID
	who     observe.Session
	cursor  mesh.Cursor
	members []string // replicas that the agent was told of
	usage   usage
	bucket  bucket
}

// Report implements AgentService.Report.
func (i *Ingest) Report(stream Stream) error {
	select {
	case <-i.config.Store.Ready():
	default:
		return status.Error(codes.Unavailable, "this replica is not ready yet")
	}
	client, err := peer.FromContext(stream.Context())
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	snapshot, _ := i.config.Store.Latest()
	cluster, err := registry.Agent(snapshot, i.config.Issuer, client)
	if err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	s := &session{ingest: i, stream: stream, ctx: stream.Context(), client: client, cluster: cluster.ID}
	return s.run()
}

// run reads in a goroutine of its own, which ends with the stream, so that the session ends when its context does.
func (s *session) run() error {
	requests, failed := make(chan *pb.ReportRequest), make(chan error, 1)
	go func() {
		for {
			request, err := s.stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- request:
			case <-s.ctx.Done():
				return
			}
		}
	}()
	if err := s.greet(requests, failed); err != nil {
		return err
	}
	defer func() { s.ingest.config.Board.Disconnect(s.who, time.Now()) }()
	for {
		select {
		case request := <-requests:
			if err := s.handle(request); err != nil {
				return err
			}
			if err := s.tellMembers(); err != nil {
				return err
			}
		case err := <-failed:
			s.log("agent disconnected", "err", err)
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.ctx.Done():
			return status.FromContextError(context.Cause(s.ctx)).Err()
		}
	}
}

func (s *session) log(msg string, args ...any) {
	args = append([]any{"audit", true, "cluster", string(s.cluster), "peer", s.client.Address, "instance", s.who.Instance}, args...)
	s.ingest.config.Log.Info(msg, args...)
}

// greet waits for Hello and answers with Welcome.
func (s *session) greet(requests <-chan *pb.ReportRequest, failed <-chan error) error {
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case request := <-requests:
		hello := request.GetHello()
		if hello == nil {
			return status.Error(codes.InvalidArgument, "the first message must be Hello")
		}
		return s.welcome(hello)
	case err := <-failed:
		return err
	case <-timer.C:
		return status.Error(codes.DeadlineExceeded, "no Hello")
	case <-s.ctx.Done():
		return status.FromContextError(context.Cause(s.ctx)).Err()
	}
}

func (s *session) welcome(hello *pb.Hello) error {
	s.who = observe.Session{
		Cluster: s.cluster, Instance: hello.GetInstance(), AgentVersion: hello.GetAgentVersion(), CredentialExpires: s.client.Leaf.NotAfter,
	}
	if err := s.ingest.config.Board.Connect(s.who, time.Now()); err != nil {
		s.log("second agent refused", "err", err)
		return status.Error(codes.AlreadyExists, err.Error())
	}
	welcome, err := s.begin()
	if err == nil {
		err = s.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: welcome}})
	}
	if err != nil {
		s.ingest.config.Board.Disconnect(s.who, time.Now())
		return err
	}
	s.ingest.metrics.sessions.Inc()
	s.log("agent connected", "version", hello.GetAgentVersion(), "epoch", s.cursor.Epoch)
	return nil
}

// begin claims the next epoch, so that no older session's proposal can be applied after this one's.
func (s *session) begin() (*pb.Welcome, error) {
	for s.ctx.Err() == nil {
		snapshot, cluster, err := s.registration()
		if err != nil {
			return nil, err
		}
		s.cursor = mesh.Cursor{Cluster: s.cluster, Epoch: 1}
		if held := cursorOf(snapshot, s.cluster); held != nil {
			s.cursor.Epoch = held.Epoch + 1
		}
		_, applied, err := s.ingest.coalescer.do(s.ctx, s.part(cluster, nil, nil))
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		if applied {
			return s.inventory()
		}
	}
	return nil, status.FromContextError(context.Cause(s.ctx)).Err()
}

// tellMembers says which replicas there are when that has changed; the agent's load reports are the clock.
func (s *session) tellMembers() error {
	members := s.ingest.config.Controllers()
	if slices.Equal(members, s.members) {
		return nil
	}
	s.members = members
	return s.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: &pb.Welcome{Controllers: members}}})
}

// registration is the cluster as it stands now.
func (s *session) registration() (*mesh.Snapshot, *mesh.Cluster, error) {
	snapshot, _ := s.ingest.config.Store.Latest()
	if cluster := snapshot.Cluster(s.cluster); cluster != nil {
		return snapshot, cluster, nil
	}
	return nil, nil, status.Errorf(codes.PermissionDenied, "cluster %q was removed", s.cluster)
}

func cursorOf(s *mesh.Snapshot, id mesh.ClusterID) *mesh.Cursor {
	object, _ := s.Get(mesh.CursorKey(id))
	cursor, _ := object.(*mesh.Cursor)
	return cursor
}

// part is what is proposed for the current cursor. It holds only while the registration that the objects were
// checked against does: a cluster that is removed or confined meanwhile stays so.
func (s *session) part(cluster *mesh.Cluster, upserts []*pb.Object, deletes []string) *pb.CommandPart {
	cursor, digest := s.cursor, meshpb.Digest(cluster)
	encoded := meshpb.Encode(&cursor)
	return &pb.CommandPart{
		Guards: []*pb.Guard{
			{Guard: &pb.Guard_Newer{Newer: encoded.GetCursor()}},
			{Guard: &pb.Guard_Key{Key: &pb.KeyGuard{Key: string(cluster.Key()), Digest: digest[:]}}},
		},
		Upserts: append(upserts, encoded), Deletes: deletes,
	}
}

// inventory is what the mesh has of the cluster, after the new epoch was claimed.
func (s *session) inventory() (*pb.Welcome, error) {
	snapshot, cluster, err := s.registration()
	if err != nil {
		return nil, err
	}
	s.usage = newUsage()
	s.members = s.ingest.config.Controllers()
	welcome := &pb.Welcome{Controllers: s.members, Epoch: s.cursor.Epoch, Have: make(map[string][]byte), Cluster: meshpb.EncodeCluster(cluster)}
	for object := range owned(snapshot, cluster) {
		digest := meshpb.Digest(object)
		welcome.Have[string(object.Key())] = digest[:]
		s.usage.set(object)
	}
	return welcome, nil
}

func (s *session) handle(request *pb.ReportRequest) error {
	s.ingest.config.Board.Heard(s.cluster, time.Now())
	switch m := request.GetMessage().(type) {
	case *pb.ReportRequest_Update:
		return s.update(m.Update)
	case *pb.ReportRequest_Load:
		return s.load(m.Load)
	}
	return status.Error(codes.InvalidArgument, "report is neither Update nor LoadReport")
}

func (s *session) update(u *pb.Update) error {
	now := time.Now()
	cursor := mesh.Cursor{Cluster: s.cluster, Epoch: u.GetEpoch(), Sequence: u.GetSequence()}
	objects := len(u.GetUpserts()) + len(u.GetDeletes())
	switch {
	case cursor.Epoch != s.cursor.Epoch || !cursor.Newer(s.cursor):
		return status.Errorf(codes.InvalidArgument, "update (%d, %d) is not after (%d, %d)", cursor.Epoch, cursor.Sequence, s.cursor.Epoch, s.cursor.Sequence)
	case objects > maxObjects:
		return status.Errorf(codes.InvalidArgument, "update of %d objects, at most %d", objects, maxObjects)
	}
	s.cursor = cursor
	if err := s.bucket.take(s.ctx, float64(objects), s.ingest.config, now); err != nil {
		return err
	}
	ack, err := s.commit(u, now)
	if err != nil {
		return err
	}
	return s.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Ack{Ack: ack}})
}

// commit has the update checked and applied, however often the leader or the registration changes meanwhile.
func (s *session) commit(u *pb.Update, now time.Time) (*pb.Ack, error) {
	for {
		snapshot, cluster, err := s.registration()
		if err != nil {
			return nil, err
		}
		part, ack := s.check(snapshot, cluster, u, now)
		index, applied, err := s.ingest.coalescer.do(s.ctx, part)
		ack.Index = index
		if err == nil && applied {
			s.count(u, ack)
			return ack, nil
		}
		if held := cursorOf(s.latest(), s.cluster); held != nil && !s.cursor.Newer(*held) {
			if *held == s.cursor {
				return ack, nil // an attempt of unknown outcome was applied after all
			}
			s.log("session superseded", "epoch", s.cursor.Epoch)
			return nil, status.Error(codes.Aborted, "a newer session of the cluster's agent has taken over")
		}
		s.ingest.config.Log.Warn("report waits", "cluster", string(s.cluster), "err", err)
		if err := s.pause(); err != nil {
			return nil, err
		}
	}
}

func (s *session) latest() *mesh.Snapshot {
	snapshot, _ := s.ingest.config.Store.Latest()
	return snapshot
}

func (s *session) pause() error {
	select {
	case <-s.ctx.Done():
		return status.FromContextError(context.Cause(s.ctx)).Err()
	case <-time.After(retryAfter):
		return nil
	}
}

func (s *session) count(u *pb.Update, ack *pb.Ack) {
	s.ingest.metrics.objects.Add(float64(len(u.GetUpserts()) + len(u.GetDeletes()) - len(ack.GetRejections())))
}

// check splits an update into the part to propose and the rejections.
func (s *session) check(snapshot *mesh.Snapshot, cluster *mesh.Cluster, u *pb.Update, now time.Time) (*pb.CommandPart, *pb.Ack) {
	ack := &pb.Ack{Sequence: u.GetSequence()}
	var upserts []*pb.Object
	var deletes []string
	for _, text := range u.GetDeletes() {
		key := mesh.Key(text)
		if refused := CheckDelete(cluster, key); refused != nil {
			s.rejected(ack, key, refused)
			continue
		}
		s.usage.remove(key)
		deletes = append(deletes, text)
	}
	for _, wire := range u.GetUpserts() {
		object, refused := s.admit(snapshot, cluster, wire, now)
		if refused != nil {
			s.rejected(ack, keyOf(object), refused)
			continue
		}
		s.usage.set(object)
		upserts = append(upserts, meshpb.Encode(object)) // what was checked, not what was sent
	}
	return s.part(cluster, upserts, deletes), ack
}

func keyOf(object mesh.Object) mesh.Key {
	if object == nil {
		return ""
	}
	return object.Key()
}

func (s *session) admit(snapshot *mesh.Snapshot, cluster *mesh.Cluster, wire *pb.Object, now time.Time) (mesh.Object, *Rejected) {
	object, err := meshpb.Decode(wire)
	if err != nil {
		return nil, &Rejected{Malformed, err}
	}
	var held *mesh.Federation
	if f, ok := object.(*mesh.Federation); ok {
		stored, _ := snapshot.Get(f.Key())
		held, _ = stored.(*mesh.Federation)
	}
	if refused := Check(cluster, object, held, now); refused != nil {
		return object, refused
	}
	return object, s.usage.exceeded(object, s.ingest.config)
}

func (s *session) rejected(ack *pb.Ack, key mesh.Key, refused *Rejected) {
	s.ingest.metrics.rejected.WithLabelValues(string(refused.Reason)).Inc()
	ack.Rejections = append(ack.Rejections, &pb.Rejection{Key: string(key), Reason: refused.Error()})
	if len(ack.Rejections) <= 20 { // the agent is told of all
		s.ingest.config.Log.Warn("report rejected", "audit", true, "cluster", string(s.cluster), "key", fmt.Sprintf("%q", key), "err", refused)
	}
}
