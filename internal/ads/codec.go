package ads

import (
	"unicode/utf8"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what all other messages are encoded with
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// Codec frames responses around the bytes of their resources, which all streams share, reads the usual answer to one by
// itself, and leaves every other message to gRPC's own protobuf codec. A gRPC server that serves discovery needs it
// (grpc.ForceServerCodecV2); [ServerOptions] has it.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

type codec struct{ encoding.CodecV2 }

// Message is a response as it is handed to SendMsg: framed.
type Message struct {
	Type xds.Type
	// ResourceBytes is how many bytes of it are resources.
	ResourceBytes int
	data          mem.BufferSlice
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*Message); ok {
		return m.data, nil
	}
	return c.CodecV2.Marshal(v)
}

// Unmarshal implements encoding.CodecV2. By far the most requests accept a response and say nothing else; those are read
// without protobuf's reflection.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if m, ok := v.(*discoveryv3.DeltaDiscoveryRequest); ok && len(data) == 1 && acceptance(data[0].ReadOnlyData(), m) {
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// acceptance reads a request that consists of type_url (2), of a type that we serve, and response_nonce (6). Of any other
// it reports false, and leaves m as it is.
func acceptance(data []byte, m *discoveryv3.DeltaDiscoveryRequest) bool {
	var kind, nonce string
	for len(data) > 0 {
		field, wireType, n := protowire.ConsumeTag(data)
		if n < 0 || wireType != protowire.BytesType {
			return false
		}
		text, size := protowire.ConsumeBytes(data[n:])
		if size < 0 {
			return false
		}
		switch {
		case field == 2 && kindOf(text) != "":
			kind = kindOf(text)
		case field == 6 && utf8.Valid(text):
			nonce = string(text)
		default:
			return false
		}
		data = data[n+size:]
	}
	m.TypeUrl, m.ResponseNonce = kind, nonce
	return true
}

// kindOf is the type that text names, without a copy of it; "" if it is none of ours.
func kindOf(text []byte) string {
	for _, t := range [...]xds.Type{xds.Endpoints, xds.Cluster, xds.Route, xds.Listener, xds.MeshObject} {
		if string(text) == string(t) {
			return string(t)
		}
	}
	return ""
}

// framing is how much a resource's tag and length take at most.
const framing = 1 + 5

// FrameDelta makes an envoy.service.discovery.v3.DeltaDiscoveryResponse: resources 2, type_url 4, nonce 5, removed_resources 6.
func FrameDelta(r xds.Response) *Message {
	tail := len(r.Type) + len(r.Nonce) + 2*framing
	for _, name := range r.Removed {
		tail += len(name) + framing
	}
	f := newFrame(len(r.Resources)+1, tail)
	for i := range r.Resources {
		f.shared(r.Resources[i].Delta)
	}
	f.text(4, string(r.Type))
	f.text(5, r.Nonce)
	for _, name := range r.Removed {
		f.text(6, name)
	}
	return f.finish(r.Type)
}

// FrameState makes an envoy.service.discovery.v3.DiscoveryResponse: version_info 1, resources 2, type_url 4, nonce 5.
func FrameState(r xds.Response) *Message {
	f := newFrame(2*len(r.Resources)+1, len(r.Resources)*framing+len(r.Version)+len(r.Type)+len(r.Nonce)+3*framing)
	for i := range r.Resources {
		data := r.Resources[i].Any
		f.own = protowire.AppendTag(f.own, 2, protowire.BytesType)
		f.own = protowire.AppendVarint(f.own, uint64(len(data)))
		f.flush()
		f.shared(data)
	}
	f.text(1, r.Version)
	f.text(4, string(r.Type))
	f.text(5, r.Nonce)
	return f.finish(r.Type)
}

// frame builds a message out of shared bytes and own bytes between them. parts and own never grow, so that parts of
// them can be given out while they are filled.
type frame struct {
	Message
	parts []mem.SliceBuffer // what data points at: one allocation instead of one for each
	own   []byte
	given int // how much of own is in parts

	few struct { // room for one resource, the common push, in the same allocation
		data  [2]mem.Buffer
		parts [2]mem.SliceBuffer
		own   [128]byte
	}
}

func newFrame(parts, own int) *frame {
	f := new(frame)
	if parts <= len(f.few.parts) && own <= len(f.few.own) {
		f.data, f.parts, f.own = f.few.data[:0], f.few.parts[:0], f.few.own[:0]
		return f
	}
	f.data, f.parts, f.own = make(mem.BufferSlice, 0, parts), make([]mem.SliceBuffer, 0, parts), make([]byte, 0, own)
	return f
}

// shared adds a part of a resource.
func (f *frame) shared(data []byte) {
	f.ResourceBytes += len(data)
	f.add(data)
}

func (f *frame) add(data []byte) {
	f.parts = append(f.parts, data)
	f.data = append(f.data, &f.parts[len(f.parts)-1])
}

func (f *frame) text(field protowire.Number, text string) {
	f.own = protowire.AppendTag(f.own, field, protowire.BytesType)
	f.own = protowire.AppendString(f.own, text)
}

func (f *frame) flush() {
	if f.given < len(f.own) {
		f.add(f.own[f.given:len(f.own):len(f.own)])
		f.given = len(f.own)
	}
}

func (f *frame) finish(t xds.Type) *Message {
	f.flush()
	f.Type = t
	return &f.Message
}
