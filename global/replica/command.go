package replica

import (
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
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

func decodeCommand(c *pb.Command) (*command, error) {
	out := &command{id: c.GetId(), parts: make([]part, len(c.GetParts()))}
	for i, p := range c.GetParts() {
		var err error
		if out.parts[i], err = decodePart(p); err != nil {
			return nil, fmt.Errorf("command: part %d: %w", i, err)
		}
	}
	return out, nil
}

func decodePart(p *pb.CommandPart) (out part, err error) {
	out = part{guards: p.GetGuards(), upserts: make([]mesh.Object, len(p.GetUpserts())), deletes: p.GetDeletes()}
	for _, guard := range out.guards {
		if guard.GetGuard() == nil {
			return out, fmt.Errorf("guard missing or unknown")
		}
	}
	for i, o := range p.GetUpserts() {
		if out.upserts[i], err = meshpb.Decode(o); err != nil {
			return out, err
		}
	}
	return out, nil
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
	var c pb.Command
	if err := proto.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return decodeCommand(&c)
}
