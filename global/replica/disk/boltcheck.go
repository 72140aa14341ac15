package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// bbolt trusts its file: on damaged pages it panics, in a goroutine of its own at that, or takes the older of its two
// roots for the newest and so forgets the last write. Hence the structure is checked here before bbolt may write.
//
// Layout (bbolt's page.go and db.go; little-endian on all that Go runs bbolt on for us):
//
//	page: id u64 | flags u16 | count u16 | overflow u32 | elements | their keys and values, without gaps
//	leaf element: flags u32 | position u32 | key length u32 | value length u32
//	branch element: position u32 | key length u32 | page u64
//	meta: magic u32 | version u32 | page size u32 | flags u32 | root u64 | sequence u64 | freelist u64 | pages u64 |
//	      transaction u64 | FNV-1a of these u64
const (
	pageHead    = 16
	metaBytes   = 56 // before the checksum
	branchPage  = 1
	leafPage    = 2
	bucketFlag  = 1
	bucketHead  = 16
	elementSize = 16 // of both kinds
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	maxPageSize = 1 << 16
	maxDepth    = 32
)

// checkFile returns no error if bbolt can use the file; fresh if it is not there or nothing was ever written to it.
func checkFile(path string) (fresh bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	// The lock keeps writers out meanwhile. Read-only, bbolt looks at its roots only.
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: openTimeout})
	if err != nil {
		return false, openError(err)
	}
	defer db.Close()
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	return checkPages(file)
}

// openError tells a file that is in use, or that cannot be read, from a damaged one.
func openError(err error) error {
	var system *os.PathError
	switch {
	case errors.Is(err, bbolt.ErrTimeout):
		return fmt.Errorf("in use by another process: %w", err)
	case errors.As(err, &system):
		return err
	}
	return fmt.Errorf("%w: %w", err, ErrCorrupt)
}

// pageWalk visits every page that is in use, once.
type pageWalk struct {
	file     io.ReaderAt
	pageSize uint64
	pages    uint64 // all ids are below
	seen     map[uint64]bool
	buckets  []string // of the root
}

func checkPages(file io.ReaderAt) (fresh bool, err error) {
	root, transaction, w, err := readMeta(file)
	if err != nil {
		return false, err
	}
	if err := w.tree(root, 0, w.rootElement); err != nil {
		return false, err
	}
	if len(w.buckets) == 0 && transaction <= 1 {
		return true, nil // made, but the process died before it wrote
	}
	if len(w.buckets) != 2 || w.buckets[0] != entriesBucket || w.buckets[1] != valuesBucket {
		return false, fmt.Errorf("buckets are %q: %w", w.buckets, ErrCorrupt)
	}
	return false, nil
}

// readMeta wants both roots whole and one transaction apart: of a damaged one nobody knows what it said.
func readMeta(file io.ReaderAt) (root, transaction uint64, w *pageWalk, err error) {
	meta := func(at int64) ([]byte, error) {
		m := make([]byte, metaBytes+8)
		_, err := file.ReadAt(m, at+pageHead)
		sum := fnv.New64a()
		sum.Write(m[:metaBytes])
		if err != nil || binary.LittleEndian.Uint32(m) != boltMagic || binary.LittleEndian.Uint32(m[4:]) != boltVersion || binary.LittleEndian.Uint64(m[metaBytes:]) != sum.Sum64() {
			return nil, fmt.Errorf("root at byte %d: %w", at, ErrCorrupt)
		}
		return m, nil
	}
	zero, err := meta(0)
	if err != nil {
		return 0, 0, nil, err
	}
	size := binary.LittleEndian.Uint32(zero[8:])
	if size < 1024 || size > maxPageSize {
		return 0, 0, nil, fmt.Errorf("page size %d: %w", size, ErrCorrupt)
	}
	one, err := meta(int64(size))
	if err != nil {
		return 0, 0, nil, err
	}
	newer, a, b := zero, binary.LittleEndian.Uint64(zero[48:]), binary.LittleEndian.Uint64(one[48:])
	if b > a {
		newer, a, b = one, b, a
	}
	if a != b+1 {
		return 0, 0, nil, fmt.Errorf("roots of transactions %d and %d: %w", a, b, ErrCorrupt)
	}
	w = &pageWalk{file: file, pageSize: uint64(size), pages: binary.LittleEndian.Uint64(newer[40:]), seen: map[uint64]bool{0: true, 1: true}}
	return binary.LittleEndian.Uint64(newer[16:]), a, w, nil
}

// tree walks the page id and what is below it, and yields the elements of its leaves, whose keys must rise.
func (w *pageWalk) tree(id uint64, depth int, yield func(flags uint32, key, value []byte) error) error {
	page, err := w.read(id)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(page) != id || depth > maxDepth {
		return fmt.Errorf("page %d: %w", id, ErrCorrupt)
	}
	if binary.LittleEndian.Uint16(page[8:]) == branchPage {
		return elements(page, branchPage, func(_ uint32, _, child []byte) error {
			return w.tree(binary.LittleEndian.Uint64(child), depth+1, yield)
		})
	}
	return elements(page, leafPage, yield)
}

// read returns a page with its overflow, and notes that it is in use.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	var head [pageHead]byte
	if id >= w.pages {
		return nil, fmt.Errorf("page %d of %d: %w", id, w.pages, ErrCorrupt)
	}
	if _, err := w.file.ReadAt(head[:], int64(id*w.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w: %w", id, err, ErrCorrupt)
	}
	last := id + uint64(binary.LittleEndian.Uint32(head[12:]))
	if last >= w.pages {
		return nil, fmt.Errorf("page %d..%d of %d: %w", id, last, w.pages, ErrCorrupt)
	}
	for i := id; i <= last; i++ {
		if w.seen[i] {
			return nil, fmt.Errorf("page %d is used twice: %w", i, ErrCorrupt)
		}
		w.seen[i] = true
	}
	var page bytes.Buffer // grows with what is there, not with what the header claims
	if _, err := io.Copy(&page, io.NewSectionReader(w.file, int64(id*w.pageSize), int64((last-id+1)*w.pageSize))); err != nil {
		return nil, fmt.Errorf("page %d: %w: %w", id, err, ErrCorrupt)
	}
	return page.Bytes(), nil
}

// elements yields those of one page; a branch's value is its child's page.
func elements(page []byte, flags uint16, yield func(flags uint32, key, value []byte) error) error {
	damaged := fmt.Errorf("page %d: %w", binary.LittleEndian.Uint64(page), ErrCorrupt)
	count := uint64(binary.LittleEndian.Uint16(page[10:]))
	next := pageHead + count*elementSize // where data is, without gaps
	if binary.LittleEndian.Uint16(page[8:]) != flags || flags == branchPage && count == 0 || next > uint64(len(page)) {
		return damaged
	}
	var before []byte
	for i := range count {
		at := pageHead + i*elementSize
		e := page[at : at+elementSize]
		kind, position, keySize, valueSize := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:]), uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
		value := e[8:]
		if flags == branchPage {
			kind, position, keySize, valueSize = 0, binary.LittleEndian.Uint32(e), uint64(binary.LittleEndian.Uint32(e[4:])), 0
		}
		if at+uint64(position) != next || keySize == 0 || next+keySize+valueSize > uint64(len(page)) || kind > bucketFlag {
			return damaged
		}
		key := page[next : next+keySize]
		if next += keySize; flags == leafPage {
			value = page[next : next+valueSize]
		}
		next += valueSize
		if bytes.Compare(before, key) >= 0 {
			return damaged
		}
		before = key
		if err := yield(kind, key, value); err != nil {
			return err
		}
	}
	return nil
}

// rootElement takes an element of the root, which has buckets only. A small bucket is in its own element.
func (w *pageWalk) rootElement(kind uint32, key, value []byte) error {
	if kind != bucketFlag || len(value) < bucketHead {
		return fmt.Errorf("bucket %q: %w", key, ErrCorrupt)
	}
	w.buckets = append(w.buckets, string(key))
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return w.tree(root, 0, bucketElement)
	}
	if len(value) < bucketHead+pageHead {
		return fmt.Errorf("bucket %q: %w", key, ErrCorrupt)
	}
	return elements(value[bucketHead:], leafPage, bucketElement)
}

// bucketElement takes an element of a bucket, which has no buckets inside; its value is checked by who reads it.
func bucketElement(kind uint32, _, _ []byte) error {
	if kind != 0 {
		return fmt.Errorf("a bucket in a bucket: %w", ErrCorrupt)
	}
	return nil
}
