package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// proxy is one stream. It remembers names and versions, as a real one would, and nothing else.
type proxy struct {
	number   int
	accepted chan struct{} // closed when the server accepted the stream
	warm     chan struct{} // closed when all endpoints have come

	names    *names
	have     map[string][]xds.Version // type -> version by the name's number; zero: nothing
	count    map[string]int           // type -> how many are not zero
	services int
	resent   int // resources received after warm with the version that it had
	received int // resources received in all
	receipts chan<- receipt
}

// receipt is a change seen by a proxy.
type receipt struct {
	proxy, change int
	at            time.Time
}

// resource is what a proxy looks at of a resource.
type resource struct{ name, version, body []byte }

// names numbers resource names, for all proxies together.
type names struct {
	mu    sync.RWMutex
	index map[string]int
	list  []string
}

func (n *names) number(name []byte) int {
	n.mu.RLock()
	i, ok := n.index[string(name)]
	n.mu.RUnlock()
	if ok {
		return i
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.index[string(name)]; ok {
		return i
	}
	n.list = append(n.list, string(name))
	n.index[string(name)] = len(n.list) - 1
	return len(n.list) - 1
}

func (n *names) all() []string {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.list
}

// response is a DeltaDiscoveryResponse, decoded without its content.
type response struct {
	kind, nonce string
	resources   []resource
	buffer      mem.Buffer
}

// lean decodes responses, encodes answers, and leaves the rest to gRPC: the client must not be what is measured.
type lean struct{ encoding.CodecV2 }

// answer accepts a response.
type answer struct{ kind, nonce string }

// Marshal makes a DeltaDiscoveryRequest: type_url 2, response_nonce 6.
func (c lean) Marshal(v any) (mem.BufferSlice, error) {
	a, ok := v.(*answer)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	data := make([]byte, 0, len(a.kind)+len(a.nonce)+12)
	data = protowire.AppendString(protowire.AppendTag(data, 2, protowire.BytesType), a.kind)
	data = protowire.AppendString(protowire.AppendTag(data, 6, protowire.BytesType), a.nonce)
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (c lean) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*response)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	r.buffer = data.MaterializeToBuffer(mem.DefaultBufferPool()) // freed once the response was taken
	return fields(r.buffer.ReadOnlyData(), func(n protowire.Number, value []byte) error {
		switch n {
		case 2:
			var one resource
			r.resources = append(r.resources, one)
			return r.resources[len(r.resources)-1].decode(value)
		case 4:
			r.kind = string(value)
		case 5:
			r.nonce = string(value)
		}
		return nil
	})
}

func (r *resource) decode(data []byte) error {
	return fields(data, func(n protowire.Number, value []byte) error {
		switch n {
		case 1:
			r.version = value
		case 2:
			r.body = value
		case 3:
			r.name = value
		}
		return nil
	})
}

// fields calls f for every length-delimited field.
func fields(data []byte, f func(protowire.Number, []byte) error) error {
	for len(data) > 0 {
		n, kind, size := protowire.ConsumeTag(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		data = data[size:]
		if kind != protowire.BytesType {
			return fmt.Errorf("field %d has wire type %d", n, kind)
		}
		value, size := protowire.ConsumeBytes(data)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, value); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// run is the proxy's stream, until ctx ends.
func (p *proxy) run(ctx context.Context, address string, dial []grpc.DialOption) error {
	dial = append(dial, grpc.WithDefaultCallOptions(grpc.ForceCodecV2(lean{ads.Codec()})),
		grpc.WithReadBufferSize(4<<10), grpc.WithSharedWriteBuffer(true),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour})) // a busy machine is no dead server
	conn, err := grpc.NewClient("passthrough:///"+address, dial...)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if err := p.subscribe(stream); err != nil {
		return err
	}
	if _, err := stream.Header(); err != nil {
		return fmt.Errorf("proxy %d: %w", p.number, err)
	}
	close(p.accepted)
	var r response
	for {
		r.resources = r.resources[:0]
		if err := stream.RecvMsg(&r); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("proxy %d: %w", p.number, err)
		}
		err := p.take(stream, r, time.Now())
		r.buffer.Free()
		if err != nil {
			return err
		}
	}
}

type sender interface {
	Send(*discoveryv3.DeltaDiscoveryRequest) error
	SendMsg(any) error
}

// subscribe sends the first requests; what the proxy has makes it a resumption.
func (p *proxy) subscribe(s sender) error {
	metadata, err := structpb.NewStruct(map[string]any{"NETWORK": network})
	if err != nil {
		return err
	}
	first := &discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{
			Id: fmt.Sprintf("sidecar~%s~p%d", clusterID, p.number), Metadata: metadata,
			Locality: &corev3.Locality{Region: region, Zone: fmt.Sprintf("z%d", p.number%2)},
		},
		TypeUrl: string(xds.Cluster), ResourceNamesSubscribe: []string{xds.Wildcard},
		InitialResourceVersions: p.versions(string(xds.Cluster)),
	}
	if err := s.Send(first); err != nil || p.count[string(xds.Endpoints)] == 0 {
		return err
	}
	return p.endpoints(s, p.versions(string(xds.Endpoints)))
}

// versions are what the proxy has, as initial_resource_versions.
func (p *proxy) versions(kind string) map[string]string {
	versions := make(map[string]string)
	list := p.names.all()
	for i, v := range p.have[kind] {
		if v != (xds.Version{}) {
			versions[list[i]] = v.String()
		}
	}
	return versions
}

func (p *proxy) endpoints(s sender, have map[string]string) error {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), InitialResourceVersions: have}
	list := p.names.all()
	for i, v := range p.have[string(xds.Cluster)] {
		if v != (xds.Version{}) {
			m.ResourceNamesSubscribe = append(m.ResourceNamesSubscribe, list[i])
		}
	}
	return s.Send(m)
}

// take records a response, answers it, and asks for endpoints once all clusters are there.
func (p *proxy) take(s sender, r response, now time.Time) error {
	before := p.count[r.kind]
	for _, one := range r.resources {
		p.record(r.kind, one)
		if change, ok := changeIn(one.body); ok {
			p.receipts <- receipt{p.number, change, now}
		}
	}
	if err := s.SendMsg(&answer{r.kind, r.nonce}); err != nil {
		return err
	}
	if before == p.services || p.count[r.kind] < p.services {
		return nil
	}
	if r.kind == string(xds.Cluster) {
		return p.endpoints(s, nil)
	}
	close(p.warm)
	return nil
}

func (p *proxy) record(kind string, r resource) {
	p.received++
	version, i := xds.Version{}, p.names.number(r.name)
	if _, err := hex.Decode(version[:], r.version); err != nil {
		panic(err)
	}
	for len(p.have[kind]) <= i {
		p.have[kind] = append(p.have[kind], xds.Version{})
	}
	switch p.have[kind][i] {
	case version:
		p.resent++
	case xds.Version{}:
		p.count[kind]++
	}
	p.have[kind][i] = version
}

// changeIn finds the endpoint at 11.a.b.c whose address is the change's number.
func changeIn(body []byte) (int, bool) {
	for {
		i := bytes.Index(body, []byte("11."))
		if i < 0 {
			return 0, false
		}
		// The byte before is the text's length, so that "10.11.0.1" is no match.
		if i > 0 && body[i-1] <= 15 && int(body[i-1]) <= len(body)-i {
			if address, err := netip.ParseAddr(string(body[i : i+int(body[i-1])])); err == nil && address.Is4() {
				four := address.As4()
				return int(four[1])<<16 | int(four[2])<<8 | int(four[3]), true
			}
		}
		body = body[i+3:]
	}
}
