package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// A file is
//
//	magic, 16 bytes
//	cluster and trust domain, each a uvarint of its length and the bytes
//	time it was made, Unix milliseconds, 8 bytes big endian
//	for each object: its source, 1 byte; a uvarint of its length; the object as protobuf
//	SHA-256 of everything before
const magic = "periplus-state1\n"

// MaxBytes is the largest file that is read.
const MaxBytes = 1 << 30

// Content is what a file says.
type Content struct {
	Owner   own.Owner
	MadeAt  time.Time
	Objects map[own.Source][]mesh.Object
}

// Encode is the file of c.
func Encode(c Content) []byte {
	out := []byte(magic)
	out = appendBytes(out, []byte(c.Owner.Cluster))
	out = appendBytes(out, []byte(c.Owner.Domain.Name()))
	out = binary.BigEndian.AppendUint64(out, uint64(c.MadeAt.UnixMilli()))
	for source, objects := range c.Objects {
		for _, object := range objects {
			out = append(out, byte(source))
			out = appendBytes(out, meshpb.Marshal(object))
		}
	}
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

func appendBytes(out, data []byte) []byte {
	return append(binary.AppendUvarint(out, uint64(len(data))), data...)
}

var errShort = errors.New("state file: ends early")

// Decode reads what [Encode] wrote for the same owner, and refuses everything else.
func Decode(data []byte, owner own.Owner) (Content, error) {
	c := Content{Owner: owner, Objects: map[own.Source][]mesh.Object{}}
	if len(data) < len(magic)+sha256.Size || !bytes.HasPrefix(data, []byte(magic)) {
		return c, errors.New("state file: not one, or of another version")
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return c, errors.New("state file: checksum differs: it is damaged")
	}
	body = body[len(magic):]
	cluster, body, err := cutBytes(body)
	if err != nil {
		return c, err
	}
	domain, body, err := cutBytes(body)
	if err != nil {
		return c, err
	}
	if string(cluster) != string(owner.Cluster) || string(domain) != owner.Domain.Name() {
		return c, fmt.Errorf("state file: is of cluster %q of %q, this is %q of %q", cluster, domain, owner.Cluster, owner.Domain.Name())
	}
	if len(body) < 8 {
		return c, errShort
	}
	c.MadeAt = time.UnixMilli(int64(binary.BigEndian.Uint64(body)))
	return c, c.objects(body[8:])
}

func (c *Content) objects(body []byte) error {
	var decoder meshpb.Decoder
	for len(body) > 0 {
		source := own.Source(body[0])
		data, rest, err := cutBytes(body[1:])
		if err != nil {
			return err
		}
		object, err := decoder.Unmarshal(data)
		if err != nil {
			return fmt.Errorf("state file: %w", err)
		}
		if !source.Valid() || !c.Owner.Owns(object.Key()) {
			return fmt.Errorf("state file: %s of source %d is not cluster %q's", object.Key(), source, c.Owner.Cluster)
		}
		c.Objects[source] = append(c.Objects[source], object)
		body = rest
	}
	return nil
}

func cutBytes(in []byte) (data, rest []byte, err error) {
	n, used := binary.Uvarint(in)
	if used <= 0 || n > uint64(len(in)-used) {
		return nil, nil, errShort
	}
	return in[used : used+int(n)], in[used+int(n):], nil
}
