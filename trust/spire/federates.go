package spire

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
)

// Reading every entry is the one expensive call. Where it takes long it is made less often, so that it takes about a
// twentieth of the time; new domains make it due at once.
const (
	scanShare = 20
	scanCheap = 50 * time.Millisecond
	scanRest  = 5 * time.Minute // at most
)

// An entry that somebody else sets back is set again after a pause that doubles.
const (
	contestFirst = 10 * time.Second
	contestLast  = time.Hour
	contestedAt  = 2 // times set back, from when on it is reported
)

// scan is what the last look at the entries found.
type scan struct {
	names     []string // that were to be there
	paths     []string
	at        time.Time
	took      time.Duration
	entries   int
	contested []string
	touched   map[string]*touch // by entry ID
}

// touch is an entry that this client changed.
type touch struct {
	names []string
	lost  int       // times that they were found missing again
	next  time.Time // not set again before
}

func (s *scan) due(names, paths []string, now time.Time) bool {
	rest := min(s.took*scanShare, scanRest)
	if s.took < scanCheap {
		rest = 0
	}
	return !slices.Equal(s.names, names) || !slices.Equal(s.paths, paths) || now.Sub(s.at) >= rest
}

// federate lets the workload entries use the desired domains that the server holds.
func (r *reconciliation) federate(ctx context.Context) error {
	var names []string
	for _, f := range r.desired.Bundles {
		if r.held[f.TrustDomain] != nil {
			names = append(names, f.TrustDomain.Name())
		}
	}
	slices.Sort(names)
	if now := time.Now(); r.scan.due(names, r.desired.Paths, now) {
		if err := r.look(ctx, names, now); err != nil {
			r.scan.at = time.Time{} // look again
			return fmt.Errorf("entries: %w", err)
		}
	}
	r.status.Entries, r.status.Contested = r.scan.entries, r.scan.contested
	return nil
}

// look reads every entry and changes those that lack a name.
func (r *reconciliation) look(ctx context.Context, names []string, now time.Time) error {
	before, seen := r.scan.touched, &scan{names: names, paths: r.desired.Paths, at: now, touched: make(map[string]*touch)}
	r.scan = seen
	var changed []*types.Entry
	for token := ""; ; {
		page, err := r.entries.ListEntries(ctx, &entryv1.ListEntriesRequest{
			PageSize: pageSize, PageToken: token,
			OutputMask: &types.EntryMask{SpiffeId: true, ParentId: true, FederatesWith: true, Downstream: true},
		})
		if err != nil {
			r.scan.touched = before
			return err
		}
		for _, e := range page.Entries {
			if next := r.extend(e, before[e.Id], now); next != nil {
				changed = append(changed, next)
			}
		}
		if token = page.NextPageToken; token == "" {
			break
		}
	}
	seen.took = time.Since(now)
	r.status.Updated = len(changed)
	return r.update(ctx, changed, &types.EntryMask{FederatesWith: true})
}

// extend returns the change that gives a workload's entry the names that it lacks, or nil. What else it federates with
// stays. An entry that somebody sets back each time is left alone for a while.
func (r *reconciliation) extend(e *types.Entry, before *touch, now time.Time) *types.Entry {
	if !isWorkload(e) || !within(e.GetSpiffeId().GetPath(), r.desired.Paths) {
		return nil
	}
	r.scan.entries++
	all := slices.Concat(e.FederatesWith, r.scan.names)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == len(e.FederatesWith) {
		if before != nil {
			r.scan.touched[e.Id] = before
		}
		return nil
	}
	mark := &touch{names: r.scan.names}
	if before != nil {
		if mark.lost, mark.next = before.lost, before.next; now.After(before.next) && setBack(e, before) {
			mark.lost++
			mark.next = now.Add(min(contestFirst<<min(mark.lost-1, 16), contestLast))
		}
	}
	r.scan.touched[e.Id] = mark
	if mark.lost < contestedAt {
		return &types.Entry{Id: e.Id, FederatesWith: all}
	}
	r.scan.contested = append(r.scan.contested, "spiffe://"+e.GetSpiffeId().GetTrustDomain()+e.GetSpiffeId().GetPath())
	if before.lost == mark.lost {
		return nil // it rests
	}
	return &types.Entry{Id: e.Id, FederatesWith: all}
}

// setBack tells whether a name that this client gave the entry is gone again.
func setBack(e *types.Entry, before *touch) bool {
	return slices.ContainsFunc(before.names, func(name string) bool { return !slices.Contains(e.FederatesWith, name) })
}

// within tells whether a path is one of the prefixes or below it; no prefixes: it is.
func within(path string, prefixes []string) bool {
	return len(prefixes) == 0 || slices.ContainsFunc(prefixes, func(prefix string) bool {
		prefix = strings.TrimSuffix(prefix, "/")
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	})
}

// isWorkload leaves out nodes (their parent is the server), SPIRE's own identities and downstream servers.
func isWorkload(e *types.Entry) bool {
	return !e.Downstream && e.GetParentId().GetPath() != "/spire/server" && !strings.HasPrefix(e.GetSpiffeId().GetPath(), "/spire/")
}
