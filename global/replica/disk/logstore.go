package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// The log is a bbolt file of two buckets. Integers are big-endian.
//
//	entries: index u64 -> term u64 | type u8 | appended i64, ns since 1970 | length u32 | extensions | data | CRC32C
//	values:  name -> value | CRC32C
//
// A checksum covers its key as well. The value "range" is the first and the last index, written in the transaction
// that changes them: bbolt's pages carry no checksums, and a log that damage has cut short looks like a whole one.
const (
	entriesBucket = "entries"
	valuesBucket  = "values"
	rangeKey      = "range"
	entryHead     = 8 + 1 + 8 + 4
	crcBytes      = 4
	logFile       = "raft.db"
	openTimeout   = time.Second // to wait for another process that has the file open
)

// errNoValue has the text that raft takes for "not stored yet".
var errNoValue = errors.New("not found")

// boltLog is a raft.LogStore and StableStore that verifies everything it reads.
type boltLog struct{ db *bbolt.DB }

// openBolt opens dir/raft.db and reads all of it once. Damage is [ErrCorrupt].
func openBolt(dir string) (*boltLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	path := filepath.Join(dir, logFile)
	fresh, err := checkFile(path)
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", path, err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: openTimeout})
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", path, openError(err))
	}
	log := &boltLog{db}
	if fresh {
		err = db.Update(func(tx *bbolt.Tx) error {
			_, err1 := tx.CreateBucket([]byte(entriesBucket))
			_, err2 := tx.CreateBucket([]byte(valuesBucket))
			return errors.Join(err1, err2)
		})
	} else {
		err = db.View(verifyLog)
	}
	if err != nil {
		return nil, fmt.Errorf("log %s: %w", path, errors.Join(err, db.Close()))
	}
	return log, nil
}

// verifyLog reads everything: the entries must be those from the first to the last that "range" tells.
func verifyLog(tx *bbolt.Tx) error {
	values := tx.Bucket([]byte(valuesBucket))
	err := values.ForEach(func(k, v []byte) error {
		_, err := unseal(k, v)
		return err
	})
	if err != nil {
		return err
	}
	first, last, err := bounds(tx)
	if err != nil {
		return err
	}
	next := first
	err = tx.Bucket([]byte(entriesBucket)).ForEach(func(k, v []byte) error {
		var entry raft.Log
		if first == 0 || next > last || len(k) != 8 || binary.BigEndian.Uint64(k) != next {
			return fmt.Errorf("entry %x stands where %d of %d..%d should: %w", k, next, first, last, ErrCorrupt)
		}
		next++
		return decodeEntry(k, v, &entry)
	})
	if err == nil && first != 0 && next != last+1 {
		err = fmt.Errorf("entries end at %d instead of %d: %w", next-1, last, ErrCorrupt)
	}
	return err
}

// bounds are the first and the last index; both 0 when there are no entries.
func bounds(tx *bbolt.Tx) (first, last uint64, err error) {
	stored := tx.Bucket([]byte(valuesBucket)).Get([]byte(rangeKey))
	if stored == nil {
		return 0, 0, nil
	}
	value, err := unseal([]byte(rangeKey), stored)
	if err == nil && len(value) != 16 {
		err = fmt.Errorf("range of %d bytes: %w", len(value), ErrCorrupt)
	}
	if err != nil {
		return 0, 0, err
	}
	return binary.BigEndian.Uint64(value), binary.BigEndian.Uint64(value[8:]), nil
}

func setBounds(tx *bbolt.Tx, first, last uint64) error {
	if first > last {
		first, last = 0, 0
	}
	value := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, first), last)
	return tx.Bucket([]byte(valuesBucket)).Put([]byte(rangeKey), seal([]byte(rangeKey), value))
}

// IsMonotonic makes raft drop the whole log when it restores a snapshot from the leader, so that no gap is left.
func (*boltLog) IsMonotonic() bool { return true }

func (l *boltLog) FirstIndex() (first uint64, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error { first, _, err = bounds(tx); return err })
	return first, err
}

func (l *boltLog) LastIndex() (last uint64, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error { _, last, err = bounds(tx); return err })
	return last, err
}

func (l *boltLog) GetLog(index uint64, out *raft.Log) error {
	return l.db.View(func(tx *bbolt.Tx) error {
		key := indexKey(index)
		stored := tx.Bucket([]byte(entriesBucket)).Get(key)
		if stored == nil {
			return raft.ErrLogNotFound
		}
		return decodeEntry(key, stored, out)
	})
}

func (l *boltLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs appends; it refuses to leave a gap.
func (l *boltLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	return l.db.Update(func(tx *bbolt.Tx) error {
		first, last, err := bounds(tx)
		if err != nil {
			return err
		}
		bucket := tx.Bucket([]byte(entriesBucket))
		bucket.FillPercent = 1 // keys only grow: pages are never inserted into
		for _, entry := range entries {
			if first == 0 {
				first, last = entry.Index, entry.Index-1
			}
			if entry.Index < first || entry.Index > last+1 {
				return fmt.Errorf("log: entry %d does not follow %d..%d", entry.Index, first, last)
			}
			key := indexKey(entry.Index)
			if err := bucket.Put(key, encodeEntry(key, entry)); err != nil {
				return err
			}
			last = max(last, entry.Index)
		}
		return setBounds(tx, first, last)
	})
}

// DeleteRange deletes a beginning or an end of the log, both ends inclusive.
func (l *boltLog) DeleteRange(from, to uint64) error {
	return l.db.Update(func(tx *bbolt.Tx) error {
		first, last, err := bounds(tx)
		if err != nil || to < first || from > last {
			return err
		}
		if from > first && to < last {
			return fmt.Errorf("log: deleting %d..%d of %d..%d would leave a gap", from, to, first, last)
		}
		bucket := tx.Bucket([]byte(entriesBucket))
		for index := max(from, first); index <= min(to, last); index++ {
			if err := bucket.Delete(indexKey(index)); err != nil {
				return err
			}
		}
		if from <= first {
			return setBounds(tx, to+1, last)
		}
		return setBounds(tx, first, from-1)
	})
}

func (l *boltLog) Set(key, value []byte) error {
	return l.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(valuesBucket)).Put(key, seal(key, value))
	})
}

func (l *boltLog) Get(key []byte) (value []byte, err error) {
	err = l.db.View(func(tx *bbolt.Tx) error {
		stored := tx.Bucket([]byte(valuesBucket)).Get(key)
		if stored == nil {
			return errNoValue
		}
		checked, err := unseal(key, stored)
		value = append([]byte{}, checked...)
		return err
	})
	return value, err
}

func (l *boltLog) SetUint64(key []byte, value uint64) error {
	return l.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

func (l *boltLog) GetUint64(key []byte) (uint64, error) {
	value, err := l.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("log: value %q of %d bytes: %w", key, len(value), ErrCorrupt)
	}
	return binary.BigEndian.Uint64(value), nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

// seal puts a checksum behind value; unseal verifies and removes it. The result shares memory with stored.
func seal(key, value []byte) []byte {
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
	return binary.BigEndian.AppendUint32(value[:len(value):len(value)], sum)
}

func unseal(key, stored []byte) ([]byte, error) {
	tail := len(stored) - crcBytes
	if tail < 0 || crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, stored[:tail]) != binary.BigEndian.Uint32(stored[tail:]) {
		return nil, fmt.Errorf("log: checksum of %q: %w", key, ErrCorrupt)
	}
	return stored[:tail], nil
}

func encodeEntry(key []byte, entry *raft.Log) []byte {
	out := make([]byte, 0, entryHead+len(entry.Extensions)+len(entry.Data)+crcBytes)
	out = binary.BigEndian.AppendUint64(out, entry.Term)
	out = append(out, byte(entry.Type))
	var appended int64
	if !entry.AppendedAt.IsZero() {
		appended = entry.AppendedAt.UnixNano()
	}
	out = binary.BigEndian.AppendUint64(out, uint64(appended))
	out = binary.BigEndian.AppendUint32(out, uint32(len(entry.Extensions)))
	out = append(append(out, entry.Extensions...), entry.Data...)
	sum := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, out)
	return binary.BigEndian.AppendUint32(out, sum)
}

// decodeEntry copies: stored is bbolt's.
func decodeEntry(key, stored []byte, out *raft.Log) error {
	body, err := unseal(key, stored)
	if err != nil {
		return err
	}
	if len(body) < entryHead || uint64(binary.BigEndian.Uint32(body[17:])) > uint64(len(body)-entryHead) {
		return fmt.Errorf("log: entry %x is cut short: %w", key, ErrCorrupt)
	}
	*out = raft.Log{Index: binary.BigEndian.Uint64(key), Term: binary.BigEndian.Uint64(body), Type: raft.LogType(body[8])}
	if appended := int64(binary.BigEndian.Uint64(body[9:])); appended != 0 {
		out.AppendedAt = time.Unix(0, appended)
	}
	rest := append([]byte{}, body[entryHead:]...)
	extensions := int(binary.BigEndian.Uint32(body[17:]))
	if out.Data = rest[extensions:]; extensions > 0 {
		out.Extensions = rest[:extensions:extensions]
	}
	return nil
}
