package spire

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Entry says which processes get which identity.
type Entry struct {
	ID       spiffeid.ID
	ParentID spiffeid.ID // the SPIRE agent's ID; the embedded authority takes any of its trust domain
	// Selectors must all hold: unix:uid:N, unix:gid:N, unix:path:/absolute/path. At least one.
	Selectors []string
	TTL       time.Duration // whole seconds; 0 = the server's default
	// DNSNames stand in the SVID for clients that verify host names; none: none.
	DNSNames []string
}

// EnsureEntries creates the entries that are missing, and sets the TTL of those that are there. Others stay. DNS names
// are of what is created.
func (c *Client) EnsureEntries(ctx context.Context, entries []Entry) error {
	var wire []*types.Entry
	for _, e := range entries {
		w, err := e.wire()
		if err != nil {
			return fmt.Errorf("entry %q: %w", e.ID, err)
		}
		wire = append(wire, w)
	}
	for batch := range slices.Chunk(wire, batchSize) {
		if err := c.ensure(ctx, batch); err != nil {
			return fmt.Errorf("SPIRE server: entries: %w", err)
		}
	}
	return nil
}

func (c *Client) ensure(ctx context.Context, batch []*types.Entry) error {
	answer, err := c.entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: batch})
	if err != nil {
		return err
	}
	if len(answer.Results) != len(batch) {
		return fmt.Errorf("server answered %d of %d", len(answer.Results), len(batch))
	}
	var late []*types.Entry
	for i, result := range answer.Results {
		err := outcome(result.Status)
		switch {
		case status.Code(err) == codes.AlreadyExists && result.Entry != nil:
			if result.Entry.X509SvidTtl != batch[i].X509SvidTtl {
				late = append(late, &types.Entry{Id: result.Entry.Id, X509SvidTtl: batch[i].X509SvidTtl})
			}
		case err != nil:
			return fmt.Errorf("%s%s: %w", batch[i].SpiffeId.TrustDomain, batch[i].SpiffeId.Path, err)
		}
	}
	return c.update(ctx, late, &types.EntryMask{X509SvidTtl: true})
}

func (e Entry) wire() (*types.Entry, error) {
	if e.ID.IsZero() || e.ParentID.IsZero() {
		return nil, errors.New("ID and parent ID are required")
	}
	w := &types.Entry{SpiffeId: idOf(e.ID), ParentId: idOf(e.ParentID), X509SvidTtl: int32(e.TTL / time.Second), DnsNames: e.DNSNames}
	for _, s := range e.Selectors {
		kind, value, ok := strings.Cut(s, ":")
		if !ok || kind == "" || value == "" {
			return nil, fmt.Errorf("selector %q: want type:value, such as unix:uid:1000", s)
		}
		w.Selectors = append(w.Selectors, &types.Selector{Type: kind, Value: value})
	}
	return w, nil
}

func idOf(id spiffeid.ID) *types.SPIFFEID {
	return &types.SPIFFEID{TrustDomain: id.TrustDomain().Name(), Path: id.Path()}
}

// update changes the masked fields of the entries.
func (c *Client) update(ctx context.Context, entries []*types.Entry, mask *types.EntryMask) error {
	for batch := range slices.Chunk(entries, batchSize) {
		answer, err := c.entries.BatchUpdateEntry(ctx, &entryv1.BatchUpdateEntryRequest{Entries: batch, InputMask: mask, OutputMask: &types.EntryMask{}})
		if err != nil {
			return err
		}
		for i, result := range answer.Results {
			err := outcome(result.Status)
			if err != nil && status.Code(err) != codes.NotFound { // somebody deleted it meanwhile
				return fmt.Errorf("%s: %w", batch[min(i, len(batch)-1)].Id, err)
			}
		}
	}
	return nil
}
