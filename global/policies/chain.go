package policies

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// digest identifies a document: hex SHA-256.
func digest(source []byte) string {
	sum := sha256.Sum256(source)
	return hex.EncodeToString(sum[:])
}

// link is the Chain of r after previous: hex SHA-256 over the previous chain and every field of r, each with its
// length, so that no two entries share an encoding.
func link(previous string, r *mesh.PolicyRevision) string {
	h := sha256.New()
	for _, field := range []string{
		previous, fmt.Sprint(r.Revision), string(r.Kind), r.Namespace, r.Name, r.Operation, r.Author, fmt.Sprint(r.AtMillis), r.Digest,
	} {
		fmt.Fprintf(h, "%d:%s", len(field), field)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Verify recomputes the chain and names the first revision that is not what was written.
func Verify(s *mesh.Snapshot) error {
	previous, next := "", uint64(1)
	for _, object := range s.Scan(string(mesh.KindPolicyRevision) + "/") {
		r := object.(*mesh.PolicyRevision)
		if r.Revision != next {
			return fmt.Errorf("policy history: revision %d is missing", next)
		}
		if digest(r.Source) != r.Digest || link(previous, r) != r.Chain {
			return fmt.Errorf("policy history: revision %d was altered", r.Revision)
		}
		previous, next = r.Chain, next+1
	}
	return nil
}

// head is the newest revision, or an empty one with number 0.
func head(s *mesh.Snapshot) *mesh.PolicyRevision {
	return s.Memo(headKey{}, func() any {
		last := new(mesh.PolicyRevision)
		for _, object := range s.Scan(string(mesh.KindPolicyRevision) + "/") {
			last = object.(*mesh.PolicyRevision)
		}
		return last
	}).(*mesh.PolicyRevision)
}

type headKey struct{}
