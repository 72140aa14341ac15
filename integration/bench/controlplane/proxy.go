package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/wire"
	"github.com/periplus-mesh/periplus/internal/xds"
)

// proxy is one stream. It remembers names and versions, as a real one would, and nothing else.
type proxy struct {
	number   int
	accepted chan struct{} // closed when the server accepted the stream
	warm     chan struct{} // closed when all endpoints have come

	names    *names
	have     map[xds.Type][]xds.Version // type -> version by the name's number; zero: nothing
	count    map[xds.Type]int           // type -> how many are not zero
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

// response is a DeltaDiscoveryResponse, decoded without its content: resources 2, type_url 4, nonce 5.
type response struct {
	kind, nonce []byte
	resources   []resource
}

// decode refers to data.
func (r *response) decode(data []byte) error {
	r.resources = r.resources[:0]
	return wire.Each(data, func(n protowire.Number, value []byte) error {
		switch n {
		case 2:
			r.resources = append(r.resources, resource{})
			return r.resources[len(r.resources)-1].decode(value)
		case 4:
			r.kind = value
		case 5:
			r.nonce = value
		}
		return nil
	})
}

// answer is the DeltaDiscoveryRequest that accepts the response: type_url 2, response_nonce 6.
func (r *response) answer(data []byte) []byte {
	data = protowire.AppendBytes(protowire.AppendTag(data, 2, protowire.BytesType), r.kind)
	return protowire.AppendBytes(protowire.AppendTag(data, 6, protowire.BytesType), r.nonce)
}

func (r *resource) decode(data []byte) error {
	return wire.Each(data, func(n protowire.Number, value []byte) error {
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

// dialer opens a connection to the server.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// run is the proxy's stream, until ctx ends.
func (p *proxy) run(ctx context.Context, address string, dial dialer) error {
	conn, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	call, err := begin(conn, func() { close(p.accepted) })
	if err != nil {
		return err
	}
	if err := p.subscribe(call); err != nil {
		return err
	}
	var r response
	var answer []byte
	for {
		message, err := call.receive()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("proxy %d: %w", p.number, err)
		}
		now := time.Now()
		if err := r.decode(message); err != nil {
			return fmt.Errorf("proxy %d: %w", p.number, err)
		}
		kind := p.kind(r.kind)
		before := p.count[kind]
		p.take(kind, r.resources, now)
		answer = r.answer(answer[:0])
		if err := call.send(answer); err != nil {
			return err
		}
		if before < p.services && p.count[kind] == p.services {
			if err := p.complete(call, kind); err != nil {
				return err
			}
		}
	}
}

// subscribe sends the first requests; what the proxy has makes it a resumption.
func (p *proxy) subscribe(c *call) error {
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
		InitialResourceVersions: p.versions(xds.Cluster),
	}
	if err := request(c, first); err != nil || p.count[xds.Endpoints] == 0 {
		return err
	}
	return p.endpoints(c, p.versions(xds.Endpoints))
}

// versions are what the proxy has, as initial_resource_versions.
func (p *proxy) versions(kind xds.Type) map[string]string {
	versions := make(map[string]string)
	list := p.names.all()
	for i, v := range p.have[kind] {
		if v != (xds.Version{}) {
			versions[list[i]] = v.String()
		}
	}
	return versions
}

func (p *proxy) endpoints(c *call, have map[string]string) error {
	m := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), InitialResourceVersions: have}
	list := p.names.all()
	for i, v := range p.have[xds.Cluster] {
		if v != (xds.Version{}) {
			m.ResourceNamesSubscribe = append(m.ResourceNamesSubscribe, list[i])
		}
	}
	return request(c, m)
}

func request(c *call, m *discoveryv3.DeltaDiscoveryRequest) error {
	data, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	return c.send(data)
}

// kind is the type without an allocation.
func (p *proxy) kind(text []byte) xds.Type {
	for _, t := range []xds.Type{xds.Endpoints, xds.Cluster} {
		if string(text) == string(t) {
			return t
		}
	}
	return xds.Type(text)
}

// take records what came.
func (p *proxy) take(kind xds.Type, resources []resource, now time.Time) {
	for _, one := range resources {
		p.record(kind, one)
		if change, ok := changeIn(one.body); ok {
			p.receipts <- receipt{p.number, change, now}
		}
	}
}

// complete asks for endpoints once all clusters are there.
func (p *proxy) complete(c *call, kind xds.Type) error {
	if kind == xds.Cluster {
		return p.endpoints(c, nil)
	}
	close(p.warm)
	return nil
}

func (p *proxy) record(kind xds.Type, r resource) {
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
