package replica

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
	"github.com/periplus-mesh/periplus/internal/wire"
)

// command is a pb.Command that has been checked. It is not written, as it may be applied while it is sent.
type command struct {
	id    []byte
	parts []part
}

type part struct {
	guards  []*pb.Guard
	upserts []mesh.Object
	deletes []string
}

// decodeCommand checks c. The result shares with it.
func decodeCommand(c *pb.Command) (*command, error) {
	out := &command{id: c.GetId(), parts: make([]part, len(c.GetParts()))}
	for i, p := range c.GetParts() {
		if err := decodePart(p, &out.parts[i]); err != nil {
			return nil, fmt.Errorf("command: part %d: %w", i, err)
		}
	}
	return out, nil
}

func decodePart(p *pb.CommandPart, out *part) (err error) {
	*out = part{guards: p.GetGuards(), upserts: make([]mesh.Object, len(p.GetUpserts())), deletes: p.GetDeletes()}
	for _, guard := range out.guards {
		if guard.GetGuard() == nil {
			return errGuard
		}
	}
	for i, o := range p.GetUpserts() {
		if out.upserts[i], err = meshpb.Decode(o); err != nil {
			return err
		}
	}
	for _, key := range out.deletes {
		if !utf8.ValidString(key) {
			return errKey
		}
	}
	return nil
}

var (
	errGuard = errors.New("guard missing or unknown")
	errKey   = errors.New("key to delete is not UTF-8")
)

// marshal makes a pb.Command: of what this program knows, so that all replicas read the same, whatever they know.
func (c *command) marshal() (b []byte, failed error) {
	for i := range c.parts {
		b = appendMessage(b, 1, &failed, c.parts[i].append)
	}
	return wire.AppendText(b, 2, string(c.id)), failed
}

func (p *part) append(b []byte) (_ []byte, failed error) {
	for _, guard := range p.guards {
		b = appendMessage(b, 1, &failed, func(b []byte) ([]byte, error) { return proto.MarshalOptions{}.MarshalAppend(b, guard) })
	}
	for _, object := range p.upserts {
		b = appendMessage(b, 2, &failed, func(b []byte) ([]byte, error) { return meshpb.Append(b, object) })
	}
	for _, key := range p.deletes {
		b = wire.AppendString(b, 3, key)
	}
	return b, failed
}

// appendMessage appends a message that may turn out to be impossible; then it is empty.
func appendMessage(b []byte, field protowire.Number, failed *error, fill func([]byte) ([]byte, error)) []byte {
	return wire.AppendMessage(b, field, func(b []byte) []byte {
		out, err := fill(b)
		if err != nil {
			*failed = err
			return b
		}
		return out
	})
}

// unmarshalCommand reads and checks a marshalled pb.Command, of which the result keeps nothing. A field that this program
// does not know is passed over. Field numbers are those of api/periplus/v1/mesh.proto.
func unmarshalCommand(data []byte) (*command, error) {
	out, decoder := new(command), new(meshpb.Decoder)
	err := wire.Each(data, func(field protowire.Number, value []byte) error {
		switch field {
		case 1: // parts
			out.parts = append(out.parts, part{})
			if err := unmarshalPart(value, decoder, &out.parts[len(out.parts)-1]); err != nil {
				return fmt.Errorf("part %d: %w", len(out.parts)-1, err)
			}
		case 2:
			out.id = bytes.Clone(value)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return out, nil
}

func unmarshalPart(data []byte, decoder *meshpb.Decoder, out *part) error {
	return wire.Each(data, func(field protowire.Number, value []byte) error {
		switch field {
		case 1: // guards
			guard := new(pb.Guard)
			if err := proto.Unmarshal(value, guard); err != nil {
				return fmt.Errorf("guard: %w", err)
			}
			if guard.GetGuard() == nil {
				return errGuard
			}
			out.guards = append(out.guards, guard)
		case 2: // upserts
			object, err := decoder.Unmarshal(value)
			if err != nil {
				return err
			}
			out.upserts = append(out.upserts, object)
		case 3: // deletes
			if !utf8.Valid(value) {
				return errKey
			}
			out.deletes = append(out.deletes, string(value))
		}
		return nil
	})
}

// prepared hands commands from the proposer to the FSM of the same replica, past the log, so that the leader does
// not decode what it has just encoded. An entry is recognised by the very memory that its data is in: raft passes
// the slice on, and what it has read from disk or network is elsewhere and is decoded. The zero prepared is empty.
type prepared struct{ commands sync.Map } // *byte, the first of the data -> *command

// add returns what to call once the entry is applied or given up.
func (p *prepared) add(data []byte, c *command) (forget func()) {
	if len(data) == 0 {
		return func() {}
	}
	p.commands.Store(&data[0], c)
	return func() { p.commands.Delete(&data[0]) }
}

// command is what data says.
func (p *prepared) command(data []byte) (*command, error) {
	if len(data) > 0 {
		if c, ok := p.commands.Load(&data[0]); ok {
			return c.(*command), nil
		}
	}
	return unmarshalCommand(data)
}
