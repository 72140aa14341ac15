package ads

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what all other messages are encoded with
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// Codec frames responses around the bytes of their resources, which all streams share, and leaves every other
// message to gRPC's own protobuf codec. A gRPC server that a [Server] is registered with needs it
// (grpc.ForceServerCodecV2); [ServerOptions] has it.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

type codec struct{ encoding.CodecV2 }

// deltaResponse and stateResponse are responses as they are handed to SendMsg.
type (
	deltaResponse struct{ xds.Response }
	stateResponse struct{ xds.Response }
)

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *deltaResponse:
		return frameDelta(m.Response), nil
	case *stateResponse:
		return frameState(m.Response), nil
	}
	return c.CodecV2.Marshal(v)
}

// framing is how much a resource's tag and length take at most.
const framing = 1 + 5

// envoy.service.discovery.v3.DeltaDiscoveryResponse: resources 2, type_url 4, nonce 5, removed_resources 6.
func frameDelta(r xds.Response) mem.BufferSlice {
	tail := len(r.Type) + len(r.Nonce) + 2*framing
	for _, name := range r.Removed {
		tail += len(name) + framing
	}
	f := newFrame(len(r.Resources), tail)
	for _, resource := range r.Resources {
		f.shared(2, resource.Delta)
	}
	f.text(4, string(r.Type))
	f.text(5, r.Nonce)
	for _, name := range r.Removed {
		f.text(6, name)
	}
	return f.finish()
}

// envoy.service.discovery.v3.DiscoveryResponse: version_info 1, resources 2, type_url 4, nonce 5.
func frameState(r xds.Response) mem.BufferSlice {
	f := newFrame(len(r.Resources), len(r.Version)+len(r.Type)+len(r.Nonce)+3*framing)
	for _, resource := range r.Resources {
		f.shared(2, resource.Any)
	}
	f.text(1, r.Version)
	f.text(4, string(r.Type))
	f.text(5, r.Nonce)
	return f.finish()
}

// frame builds a message out of shared bytes and own bytes between them. own never grows, so that parts of it can be
// given out while it is filled.
type frame struct {
	out   mem.BufferSlice
	own   []byte
	given int // how much of own is in out
}

func newFrame(resources, tail int) *frame {
	return &frame{
		out: make(mem.BufferSlice, 0, 2*resources+1),
		own: make([]byte, 0, resources*framing+tail),
	}
}

func (f *frame) shared(field protowire.Number, data []byte) {
	f.own = protowire.AppendTag(f.own, field, protowire.BytesType)
	f.own = protowire.AppendVarint(f.own, uint64(len(data)))
	f.flush()
	f.out = append(f.out, mem.SliceBuffer(data))
}

func (f *frame) text(field protowire.Number, text string) {
	f.own = protowire.AppendTag(f.own, field, protowire.BytesType)
	f.own = protowire.AppendString(f.own, text)
}

func (f *frame) flush() {
	if f.given < len(f.own) {
		f.out = append(f.out, mem.SliceBuffer(f.own[f.given:len(f.own):len(f.own)]))
		f.given = len(f.own)
	}
}

func (f *frame) finish() mem.BufferSlice {
	f.flush()
	return f.out
}
