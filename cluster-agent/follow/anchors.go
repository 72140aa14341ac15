package follow

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// anchors are the last accepted bundle of each domain, also of those that were removed since: else to remove a domain
// and to add it again would be the way around continuity. Those of removed domains are on disk, or a restart in between
// would be; the others are in the copy of the feed.
type anchors struct {
	path    string // "" keeps none
	held    map[mesh.Key]*mesh.Federation
	removed map[mesh.Key]bool
}

// openAnchors reads the removed domains' anchors, but for those to forget. A file that cannot be read is an error:
// without it nobody knows what was trusted.
func openAnchors(path string, forget []spiffeid.TrustDomain) (*anchors, error) {
	a := &anchors{path: path, held: map[mesh.Key]*mesh.Federation{}, removed: map[mesh.Key]bool{}}
	if path == "" {
		return a, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	var all [][]byte
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err == nil {
		err = a.read(all)
	}
	if err != nil {
		return nil, fmt.Errorf("follow: %s: %w: without it the domains that it names would be taken on their word", path, err)
	}
	if len(forget) == 0 {
		return a, nil
	}
	for _, domain := range forget {
		delete(a.held, mesh.FederationKey(domain.Name()))
		delete(a.removed, mesh.FederationKey(domain.Name()))
	}
	return a, a.write()
}

func (a *anchors) read(all [][]byte) error {
	for _, data := range all {
		object, err := meshpb.Unmarshal(data)
		if err != nil {
			return err
		}
		f, ok := object.(*mesh.Federation)
		if !ok {
			return fmt.Errorf("%s is no trust domain", object.Key())
		}
		a.held[f.Key()], a.removed[f.Key()] = f, true
	}
	return nil
}

// accept makes f its domain's anchor.
func (a *anchors) accept(f *mesh.Federation) error {
	key := f.Key()
	a.held[key] = f
	if !a.removed[key] {
		return nil
	}
	delete(a.removed, key)
	return a.write()
}

// remove keeps the anchor of a domain that is no longer in the feed.
func (a *anchors) remove(key mesh.Key) error {
	if a.held[key] == nil || a.removed[key] {
		return nil
	}
	a.removed[key] = true
	return a.write()
}

func (a *anchors) write() error {
	if a.path == "" {
		return nil
	}
	all := [][]byte{}
	for key := range a.removed {
		all = append(all, meshpb.Marshal(a.held[key]))
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return durable.Write(a.path, data)
}
