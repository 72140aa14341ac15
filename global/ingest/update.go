package ingest

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// Limits of one update. Its part of a command must fit into a raft entry, whatever encoding adds to it.
const (
	maxObjects     = 5_000
	maxUpdateBytes = 2 << 20
)

func (s *session) update(u *pb.Update) error {
	now := time.Now()
	cursor := mesh.Cursor{Cluster: s.cluster, Epoch: u.GetEpoch(), Sequence: u.GetSequence()}
	objects := len(u.GetUpserts()) + len(u.GetDeletes())
	switch {
	case cursor.Epoch != s.cursor.Epoch || !cursor.Newer(s.cursor):
		return status.Errorf(codes.InvalidArgument, "update (%d, %d) is not after (%d, %d)", cursor.Epoch, cursor.Sequence, s.cursor.Epoch, s.cursor.Sequence)
	case objects > maxObjects:
		return status.Errorf(codes.InvalidArgument, "update of %d objects, at most %d", objects, maxObjects)
	case proto.Size(u) > maxUpdateBytes:
		return status.Errorf(codes.InvalidArgument, "update of %d bytes, at most %d", proto.Size(u), maxUpdateBytes)
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
		checked := s.check(snapshot, cluster, u, now)
		index, applied, err := s.ingest.coalescer.do(s.ctx, checked.part)
		if err == nil && applied {
			return s.done(u, checked, index), nil
		}
		if held := cursorOf(s.latest(), s.cluster); held != nil && !s.cursor.Newer(*held) {
			if *held == s.cursor {
				return s.done(u, checked, index), nil // an attempt of unknown outcome was applied after all
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

// checked is an update, split into what is proposed and what is refused.
type checked struct {
	part    *pb.CommandPart
	refused []refusal
}

type refusal struct {
	key mesh.Key // "": of an object that cannot be read
	why *Rejected
}

func (s *session) check(snapshot *mesh.Snapshot, cluster *mesh.Cluster, u *pb.Update, now time.Time) (out checked) {
	var upserts []*pb.Object
	var deletes []string
	for _, text := range u.GetDeletes() {
		key := mesh.Key(text)
		if refused := CheckDelete(cluster, key); refused != nil {
			out.refused = append(out.refused, refusal{key, refused})
			continue
		}
		s.usage.remove(key)
		deletes = append(deletes, text)
	}
	for _, wire := range u.GetUpserts() {
		object, encoded, refused := s.admit(snapshot, cluster, wire, now)
		if refused != nil {
			out.refused = append(out.refused, refusal{keyOf(object), refused})
			continue
		}
		upserts = append(upserts, encoded)
	}
	out.part = s.part(cluster, upserts, deletes)
	return out
}

func keyOf(object mesh.Object) mesh.Key {
	if object == nil {
		return ""
	}
	return object.Key()
}

// admit returns what was checked, encoded anew, not what was sent.
func (s *session) admit(snapshot *mesh.Snapshot, cluster *mesh.Cluster, wire *pb.Object, now time.Time) (mesh.Object, *pb.Object, *Rejected) {
	object, err := meshpb.Decode(wire)
	if err != nil {
		return nil, nil, &Rejected{Malformed, err}
	}
	var held *mesh.Federation
	if f, ok := object.(*mesh.Federation); ok {
		stored, _ := snapshot.Get(f.Key())
		held, _ = stored.(*mesh.Federation)
	}
	if refused := Check(cluster, object, held, now); refused != nil {
		return object, nil, refused
	}
	encoded := meshpb.Encode(object)
	bytes := proto.Size(encoded)
	if refused := s.usage.exceeded(object, bytes, s.ingest.config); refused != nil {
		return object, nil, refused
	}
	s.usage.set(object, bytes)
	return object, encoded, nil
}

// maxLogged is how many refusals of one update are logged; the agent is told of all.
const maxLogged = 20

// done counts and audits an update once, however many attempts it took, and makes the answer.
func (s *session) done(u *pb.Update, c checked, index uint64) *pb.Ack {
	ack := &pb.Ack{Sequence: u.GetSequence(), Index: index}
	s.ingest.metrics.objects.Add(float64(len(u.GetUpserts()) + len(u.GetDeletes()) - len(c.refused)))
	for i, r := range c.refused {
		s.ingest.metrics.rejected.WithLabelValues(string(r.why.Reason)).Inc()
		ack.Rejections = append(ack.Rejections, &pb.Rejection{Key: string(r.key), Reason: r.why.Error()})
		if i < maxLogged {
			s.ingest.config.Log.Warn("report rejected", "audit", true, "cluster", string(s.cluster), "key", fmt.Sprintf("%q", r.key), "err", r.why)
		}
	}
	return ack
}
