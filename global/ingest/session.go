package ingest

import (
	"context"
	"errors"
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

const (
	maxHelloBytes = 128 // of each name in Hello: every replica keeps them
	helloTimeout  = 10 * time.Second
	retryAfter    = 100 * time.Millisecond
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
	seen    observe.Stream
	cursor  mesh.Cursor
	told    *mesh.Cluster // the registration as the agent was told of it
	members []string      // replicas that the agent was told of
	usage   usage
	bucket  bucket
	// dropping tells that the last load report was too large.
	dropping bool
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
	defer func() { s.ingest.config.Board.Disconnect(s.seen, time.Now()) }()
	for {
		select {
		case request := <-requests:
			if err := s.handle(request); err != nil {
				return err
			}
			if err := errors.Join(s.tellMembers(), s.outdated()); err != nil {
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

func (s *session) welcome(hello *pb.Hello) (err error) {
	if max(len(hello.GetInstance()), len(hello.GetAgentVersion())) > maxHelloBytes {
		return status.Errorf(codes.InvalidArgument, "Hello: instance and version have at most %d bytes", maxHelloBytes)
	}
	s.who = observe.Session{
		Cluster: s.cluster, Instance: hello.GetInstance(), AgentVersion: hello.GetAgentVersion(), CredentialExpires: s.client.Leaf.NotAfter,
	}
	if s.seen, err = s.ingest.config.Board.Connect(s.who, time.Now()); err != nil {
		s.log("second agent refused", "err", err)
		return status.Error(codes.AlreadyExists, err.Error())
	}
	welcome, err := s.begin()
	if err == nil {
		err = s.stream.Send(&pb.ReportResponse{Message: &pb.ReportResponse_Welcome{Welcome: welcome}})
	}
	if err != nil {
		s.ingest.config.Board.Disconnect(s.seen, time.Now())
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
		index, applied, err := s.ingest.coalescer.do(s.ctx, s.part(cluster, nil, nil))
		if err != nil {
			return nil, status.Error(codes.Unavailable, err.Error())
		}
		if applied {
			return s.inventory(index)
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

// outdated ends the session when the registration admits other objects than the agent was told: what was refused may be
// welcome now, and an agent sends it again only in a new session.
func (s *session) outdated() error {
	now := s.latest().Cluster(s.cluster)
	if now == nil || now == s.told || admitted(now) == admitted(s.told) {
		return nil
	}
	return status.Error(codes.Aborted, "the cluster's registration has changed: report again")
}

// admitted is equal for registrations that admit the same objects.
func admitted(c *mesh.Cluster) [meshpb.DigestBytes]byte {
	return meshpb.Digest(&mesh.Cluster{ID: c.ID, Region: c.Region, TrustDomain: c.TrustDomain, Networks: c.Networks, Namespaces: c.Namespaces})
}

// inventory is what the mesh has of the cluster after the new epoch was claimed at index. What it had before may be
// older than what it has acknowledged: then the agent would never send what an older session's last update undid.
func (s *session) inventory(index uint64) (*pb.Welcome, error) {
	if err := s.reach(index); err != nil {
		return nil, err
	}
	snapshot, cluster, err := s.registration()
	if err != nil {
		return nil, err
	}
	s.usage, s.told = newUsage(), cluster
	s.members = s.ingest.config.Controllers()
	welcome := &pb.Welcome{Controllers: s.members, Epoch: s.cursor.Epoch, Have: make(map[string][]byte), Cluster: meshpb.EncodeCluster(cluster)}
	for object := range owned(snapshot, cluster) {
		data := meshpb.Marshal(object)
		digest := meshpb.DigestOf(data)
		welcome.Have[string(object.Key())] = digest[:]
		s.usage.set(object, len(data))
	}
	return welcome, nil
}

// reach waits until the local store reflects index.
func (s *session) reach(index uint64) error {
	for {
		snapshot, changed := s.ingest.config.Store.Latest()
		if uint64(snapshot.Revision()) >= index {
			return nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return status.FromContextError(context.Cause(s.ctx)).Err()
		}
	}
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
