package replica

import (
	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/replica/disk"
)

// maxRecent is how many results are remembered: more than can be proposed while one proposal is tried again.
const maxRecent = 8192

// recent remembers the results of the newest commands by id, so that a proposal whose outcome is unknown can be
// proposed again without being done twice. It is part of the replicated state. The zero recent is empty.
type recent struct {
	results map[string]*pb.CommandResult
	order   []disk.Remembered // ring of maxRecent once full; next is the oldest
	next    int
}

func (r *recent) result(id []byte) (*pb.CommandResult, bool) {
	result, ok := r.results[string(id)]
	return result, ok
}

func (r *recent) add(id []byte, result *pb.CommandResult) {
	if len(id) == 0 {
		return
	}
	if r.results == nil {
		r.results = make(map[string]*pb.CommandResult)
	}
	r.results[string(id)] = result
	if len(r.order) < maxRecent {
		r.order = append(r.order, disk.Remembered{ID: id, Result: result})
		return
	}
	delete(r.results, string(r.order[r.next].ID))
	r.order[r.next] = disk.Remembered{ID: id, Result: result}
	r.next = (r.next + 1) % maxRecent
}

// all is a copy, oldest first.
func (r *recent) all() []disk.Remembered {
	out := append(make([]disk.Remembered, 0, len(r.order)), r.order[r.next:]...)
	return append(out, r.order[:r.next]...)
}
