package adsclient

import (
	"maps"
	"slices"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// keep records an applied update for the disk, to be written after CacheInterval.
func (c *client) keep(u Update, versions map[string]string) {
	if c.resources == nil || len(u.Upserts)+len(u.Removed) == 0 {
		return
	}
	if c.resources[u.Type] == nil {
		c.resources[u.Type] = make(map[string]kept)
	}
	for _, item := range u.Upserts {
		c.resources[u.Type][item.Name] = kept{u.Type, item.Name, versions[item.Name], item.Body}
	}
	for _, name := range u.Removed {
		delete(c.resources[u.Type], name)
	}
	if !c.dirty {
		c.dirty = true
		c.writeAt.Reset(c.config.CacheInterval)
	}
}

func (c *client) encode() []byte {
	var all []kept
	for _, t := range xds.Types() {
		for _, name := range slices.Sorted(maps.Keys(c.resources[t])) {
			all = append(all, c.resources[t][name])
		}
	}
	return encodeCache(c.config.Node.GetId(), all)
}

// trySave hands the resources to the writer, or comes back later if that is busy: a slow disk delays no update.
func (c *client) trySave() {
	if !c.dirty {
		return
	}
	select {
	case c.writes <- c.encode():
		c.dirty = false
	default:
		c.writeAt.Reset(c.config.CacheInterval)
	}
}

// save is the last trySave.
func (c *client) save() {
	if c.dirty {
		c.writes <- c.encode()
	}
}

// write is the writer: it owns the files.
func (c *client) write() {
	for data := range c.writes {
		if err := writeCache(c.config.DiskCache, data); err != nil {
			c.config.Log.Error("ads: the last good resources were not saved", "err", err)
		}
	}
}
