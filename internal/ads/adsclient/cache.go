package adsclient

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// The disk cache is two files, the newest generation and the one before. Each is
//
//	magic, node id, number of resources, then per resource: type, name, version, body; and the SHA-256 of all that
//
// with texts as uvarint length and bytes, numbers as uvarint.
const (
	cacheMagic    = "periplus-ads-1\n"
	cacheNewest   = "resources"
	cachePrevious = "resources.previous"
	maxCacheBytes = 1 << 30
)

// Errors of a cache file; all of them mean that this generation is not used.
var (
	errCacheCorrupt = errors.New("cache file is damaged")
	errCacheNode    = errors.New("cache file belongs to another node")
)

// kept is one resource as it is kept on disk. version is the server's own text.
type kept struct {
	t       xds.Type
	name    string
	version string
	body    []byte
}

func encodeCache(node string, resources []kept) []byte {
	size := len(cacheMagic) + len(node) + 64
	for _, r := range resources {
		size += len(r.t) + len(r.name) + len(r.version) + len(r.body) + 16
	}
	out := append(make([]byte, 0, size), cacheMagic...)
	out = appendText(out, node)
	out = binary.AppendUvarint(out, uint64(len(resources)))
	for _, r := range resources {
		out = appendText(out, string(r.t))
		out = appendText(out, r.name)
		out = appendText(out, r.version)
		out = appendText(out, r.body)
	}
	return seal(out)
}

func seal(out []byte) []byte {
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func appendText[T string | []byte](out []byte, text T) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}

func decodeCache(data []byte, node string) ([]kept, error) {
	end := len(data) - sha256.Size
	if end < len(cacheMagic) || string(data[:len(cacheMagic)]) != cacheMagic {
		return nil, errCacheCorrupt
	}
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, errCacheCorrupt
	}
	r := &cacheReader{rest: data[len(cacheMagic):end]}
	if owner := string(r.text()); r.err == nil && owner != node {
		return nil, fmt.Errorf("%w: %q, this is %q", errCacheNode, owner, node)
	}
	var resources []kept
	for n := r.number(); n > 0 && r.err == nil; n-- {
		resources = append(resources, kept{xds.Type(r.text()), string(r.text()), string(r.text()), r.text()})
	}
	if r.err != nil || len(r.rest) > 0 {
		return nil, errCacheCorrupt
	}
	return resources, nil
}

// cacheReader reads texts and numbers until its first error.
type cacheReader struct {
	rest []byte
	err  error
}

func (r *cacheReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.err, r.rest = errCacheCorrupt, nil
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *cacheReader) text() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.err, r.rest = errCacheCorrupt, nil
		return nil
	}
	text := r.rest[:n:n]
	r.rest = r.rest[n:]
	return text
}

// writeCache makes data the newest generation. A crash at any point leaves at least one whole generation.
func writeCache(dir string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("disk cache: %w", err)
	}
	newest := filepath.Join(dir, cacheNewest)
	temporary, err := durable.Stage(newest, data)
	if err != nil {
		return fmt.Errorf("disk cache: %w", err)
	}
	defer os.Remove(temporary) // gone already after the rename
	if err := os.Rename(newest, filepath.Join(dir, cachePrevious)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disk cache: %w", err)
	}
	if err := os.Rename(temporary, newest); err != nil {
		return fmt.Errorf("disk cache: %w", err)
	}
	return durable.SyncDir(dir)
}

// readCache returns the newest generation that is whole and this node's. The error tells of every one that is not; a
// folder without any is no error. A damaged one is removed, for it must not become the previous generation.
func readCache(dir, node string) ([]kept, error) {
	problems := durable.Sweep(dir)
	for _, name := range []string{cacheNewest, cachePrevious} {
		path := filepath.Join(dir, name)
		resources, err := readGeneration(path, node)
		if err == nil {
			return resources, problems
		}
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		problems = errors.Join(problems, fmt.Errorf("disk cache: %s: %w", name, err))
		if errors.Is(err, errCacheCorrupt) {
			problems = errors.Join(problems, os.Remove(path))
		}
	}
	return nil, problems
}

func readGeneration(path, node string) ([]kept, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: not a regular file", errCacheCorrupt)
	case info.Size() > maxCacheBytes:
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", errCacheCorrupt, info.Size(), maxCacheBytes)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxCacheBytes))
	if err != nil {
		return nil, err
	}
	return decodeCache(data, node)
}
