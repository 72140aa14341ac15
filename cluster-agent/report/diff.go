package report

import (
	"bytes"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// Limits of one update: half of what a controller reads, and its batch.
const (
	maxUpdateBytes   = 512 << 10
	maxUpdateObjects = 5_000
)

// ledger is what one stream's controller has and what it must still be told. Pure.
type ledger struct {
	owner    own.Owner
	have     map[mesh.Key][]byte   // acknowledged: digests
	refused  map[mesh.Key][]byte   // digests that were refused; not sent again
	dirty    map[mesh.Key]struct{} // may differ
	foreign  map[mesh.Key]struct{} // the controllers have it; whether it is gone is not known before the sources settle
	snapshot *mesh.Snapshot
}

// newLedger compares what the controllers have with now.
func newLedger(owner own.Owner, have map[string][]byte, now *mesh.Snapshot) *ledger {
	l := &ledger{
		owner: owner, have: map[mesh.Key][]byte{}, refused: map[mesh.Key][]byte{}, dirty: map[mesh.Key]struct{}{},
		foreign: map[mesh.Key]struct{}{}, snapshot: mesh.Empty,
	}
	for text, digest := range have {
		key := mesh.Key(text)
		if owner.Owns(key) {
			l.have[key], l.foreign[key] = digest, struct{}{}
		}
	}
	l.advance(now)
	return l
}

// advance notes what differs between now and what was seen before. Another registration of the cluster may admit what
// was refused under the one before.
func (l *ledger) advance(now *mesh.Snapshot) {
	for key := range mesh.Diff(l.snapshot, now) {
		switch {
		case l.owner.Owns(key):
			l.dirty[key] = struct{}{}
		case key == mesh.ClusterKey(l.owner.Cluster):
			l.retry()
		}
	}
	l.snapshot = now
}

// retry sends what was refused once more.
func (l *ledger) retry() {
	for key := range l.refused {
		l.dirty[key] = struct{}{}
	}
	clear(l.refused)
}

// settle makes what the store does not have count as gone. The bundle is never gone: as long as the SPIRE server was not
// asked it is not known, and a domain ends with its cluster's registration.
func (l *ledger) settle() {
	for key := range l.foreign {
		if key.Kind() != mesh.KindFederation {
			l.dirty[key] = struct{}{}
		}
	}
	clear(l.foreign)
}

// next takes as much of what is dirty as one update carries; nil if nothing is left.
func (l *ledger) next() (*pb.Update, map[mesh.Key][]byte) {
	update, sent, size := &pb.Update{}, map[mesh.Key][]byte{}, 0
	for _, key := range l.order() {
		object, ok := l.snapshot.Get(key)
		if !ok {
			delete(l.dirty, key)
			if _, there := l.have[key]; there {
				update.Deletes, sent[key] = append(update.Deletes, string(key)), nil
			}
			continue
		}
		encoded := meshpb.Encode(object)
		digest := digestOf(object)
		if bytes.Equal(l.have[key], digest) || bytes.Equal(l.refused[key], digest) {
			delete(l.dirty, key)
			continue
		}
		size += proto.Size(encoded)
		if len(sent) > 0 && size > maxUpdateBytes || len(sent) >= maxUpdateObjects {
			break
		}
		delete(l.dirty, key)
		update.Upserts, sent[key] = append(update.Upserts, encoded), digest
	}
	if len(sent) == 0 {
		return nil, nil
	}
	return update, sent
}

// order puts services before their endpoints, and deletes them after.
func (l *ledger) order() []mesh.Key {
	keys := make([]mesh.Key, 0, len(l.dirty))
	for key := range l.dirty {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b mesh.Key) int { return cmpKeys(l.rank(a), l.rank(b), a, b) })
	return keys
}

func (l *ledger) rank(key mesh.Key) int {
	_, there := l.snapshot.Get(key)
	service := key.Kind() == mesh.KindService
	switch {
	case there && service:
		return 0
	case service:
		return 2
	}
	return 1
}

func cmpKeys(rankA, rankB int, a, b mesh.Key) int {
	if rankA != rankB {
		return rankA - rankB
	}
	return bytes.Compare([]byte(a), []byte(b))
}

// acknowledge takes the answer to what next returned.
func (l *ledger) acknowledge(sent map[mesh.Key][]byte, rejections []*pb.Rejection) {
	rejected := make(map[mesh.Key]bool, len(rejections))
	for _, r := range rejections {
		rejected[mesh.Key(r.GetKey())] = true
	}
	for key, digest := range sent {
		switch {
		case rejected[key]:
			l.refused[key] = digest
		case digest == nil:
			delete(l.have, key)
			delete(l.refused, key)
		default:
			l.have[key] = digest
			delete(l.refused, key)
		}
	}
}

func digestOf(o mesh.Object) []byte {
	digest := meshpb.Digest(o)
	return digest[:]
}
