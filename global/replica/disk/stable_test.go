package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Each write leaves the page of the one before as it is, and is one block, which power loss leaves whole or as it was.
func TestValuesAreWrittenInTurn(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	written := []map[uint64][]byte{files(t, dir)}
	page := func(n, i int) []byte { return written[n][0][i*stablePage : (i+1)*stablePage] }
	last := -1
	for n := range 4 {
		if err := log.SetUint64([]byte("CurrentTerm"), uint64(n)); err != nil {
			t.Fatal(err)
		}
		written = append(written, files(t, dir))
		opens(t, "after a write", written[n+1], contents(t, log))
		var changed []int
		for i := range 2 {
			if !bytes.Equal(page(n, i), page(n+1, i)) {
				changed = append(changed, i)
			}
		}
		if len(changed) != 1 || changed[0] == last {
			t.Fatalf("pages %v were written, before %d", changed, last)
		}
		last = changed[0]
	}
	closed(t, log)
	for i := range 2 { // a disk that has lost the last writes of one
		late := bytes.Clone(written[4][0])
		copy(late[i*stablePage:], page(0, i))
		refused(t, put(t, changed(written[4], 0, late)), "a page of long ago")
	}
}

// What does not fit is refused, and what was there stays.
func TestValuesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	if err := log.Set([]byte("LastVoteCand"), bytes.Repeat([]byte("x"), 400)); err != nil {
		t.Fatal(err)
	}
	want := contents(t, log)
	for _, value := range [][]byte{make([]byte, 72), make([]byte, 100_000)} {
		if err := log.Set([]byte("CurrentTerm"), value); err == nil || !strings.Contains(err.Error(), "500") {
			t.Errorf("%d bytes: %v", len(value), err)
		}
	}
	if err := log.Set(nil, []byte("x")); err == nil {
		t.Error("a value without a name")
	}
	if contents(t, log) != want {
		t.Error("what was refused has changed something")
	}
	closed(t, log)
	log = open(t, dir)
	defer closed(t, log)
	if contents(t, log) != want {
		t.Error("or will have")
	}
}

// After a write that failed no other is made.
func TestFailedValueIsTheLast(t *testing.T) {
	dir := t.TempDir()
	log := open(t, dir)
	defer closed(t, log)
	good := log.stable.file
	readOnly, err := os.Open(filepath.Join(dir, logFolder, stableFile))
	if err != nil {
		t.Fatal(err)
	}
	log.stable.file = readOnly
	err = log.SetUint64([]byte("CurrentTerm"), 1)
	log.stable.file = good
	if again := log.SetUint64([]byte("CurrentTerm"), 2); !errors.Is(err, syscall.EBADF) || again != err || readOnly.Close() != nil {
		t.Errorf("%v, then %v", err, again)
	}
	if _, err := log.Get([]byte("CurrentTerm")); !errors.Is(err, errNoValue) {
		t.Errorf("what failed is seen: %v", err)
	}
}

// Whatever the file holds, it is refused or taken, and what is taken is written as it was read.
func FuzzStable(f *testing.F) {
	values := map[string][]byte{"CurrentTerm": {1}, "LastVoteCand": nil}
	f.Add([]byte("x"), 9, byte(1))
	f.Add(encodeStable(2, values)[stableHead:blockBytes], 5, byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at int, flip byte) {
		page := encodeStable(3, values)
		copy(page[stableHead:], content)
		if at >= 0 && at < len(page) {
			page[at] ^= flip
		}
		binary.BigEndian.PutUint32(page, crc32.Checksum(page[4:], castagnoli)) // as if somebody meant it
		generation, read, err := decodeStable(append(encodeStable(2, nil), page...))
		if err != nil || generation != 3 {
			return
		}
		_, again, err := decodeStable(append(encodeStable(2, nil), encodeStable(3, read)...))
		if err != nil || !maps.EqualFunc(read, again, bytes.Equal) {
			t.Errorf("%q, and read again %q, %v", read, again, err)
		}
	})
}
