package ads

import (
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// TestCodec: what is framed by hand is what protobuf reads back.
func TestCodec(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := xds.Response{Type: xds.Endpoints, Nonce: rapid.StringN(0, 9, -1).Draw(t, "nonce"), Version: "v"}
		wantDelta := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce}
		wantState := &discoveryv3.DiscoveryResponse{TypeUrl: string(r.Type), Nonce: r.Nonce, VersionInfo: "v"}
		for range rapid.IntRange(0, 5).Draw(t, "resources") {
			name := rapid.StringN(0, 20, -1).Draw(t, "name")
			body := rapid.SliceOfN(rapid.Byte(), 0, 400).Draw(t, "body")
			resource := xds.NewRawResource(r.Type, name, body)
			r.Resources = append(r.Resources, resource)
			any := &anypb.Any{TypeUrl: string(r.Type), Value: body}
			wantState.Resources = append(wantState.Resources, any)
			wantDelta.Resources = append(wantDelta.Resources, &discoveryv3.Resource{
				Name: name, Version: resource.Version.String(), Resource: any,
			})
		}
		r.Removed = rapid.SliceOf(rapid.StringN(0, 20, -1)).Draw(t, "removed")
		wantDelta.RemovedResources = r.Removed
		check(t, FrameDelta(r), new(discoveryv3.DeltaDiscoveryResponse), wantDelta)
		check(t, FrameState(r), new(discoveryv3.DiscoveryResponse), wantState)
		check(t, wantDelta, new(discoveryv3.DeltaDiscoveryResponse), wantDelta) // the fallback
	})
}

func check(t *rapid.T, message any, got, want proto.Message) {
	data, err := Codec().Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(data.Materialize(), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// BenchmarkFrame frames one changed resource, the common push.
func BenchmarkFrame(b *testing.B) {
	r := xds.Response{Type: xds.Endpoints, Nonce: "12345", Resources: []xds.Resource{
		xds.NewRawResource(xds.Endpoints, "outbound|80||catalog.shop.svc.cluster.local", make([]byte, 1500)),
	}}
	b.ReportAllocs()
	for b.Loop() {
		FrameDelta(r).data.Free()
	}
}

// FuzzRequest: whatever comes is read as protobuf reads it, or refused as it does.
func FuzzRequest(f *testing.F) {
	for _, m := range []*discoveryv3.DeltaDiscoveryRequest{
		{TypeUrl: string(xds.Endpoints), ResponseNonce: "17"}, {TypeUrl: "another", ResponseNonce: "17"}, {ResponseNonce: "\u00fc"},
		{TypeUrl: string(xds.Cluster), ResponseNonce: "1", ResourceNamesSubscribe: []string{"*"}},
		{TypeUrl: string(xds.Cluster), ResponseNonce: "1", ErrorDetail: &status.Status{Message: "no"}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("\x32\x01\xff")) // a nonce that is not UTF-8
	f.Fuzz(func(t *testing.T, data []byte) {
		want, got := new(discoveryv3.DeltaDiscoveryRequest), new(discoveryv3.DeltaDiscoveryRequest)
		refused := proto.Unmarshal(data, want)
		err := Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, got)
		if (err == nil) != (refused == nil) || err == nil && !proto.Equal(got, want) {
			t.Fatalf("%v, %v; want %v, %v", got, err, want, refused)
		}
	})
}

// BenchmarkAcceptance reads the common request.
func BenchmarkAcceptance(b *testing.B) {
	data, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: string(xds.Endpoints), ResponseNonce: "12345"})
	if err != nil {
		b.Fatal(err)
	}
	codec, wire := Codec(), mem.BufferSlice{mem.SliceBuffer(data)}
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.Unmarshal(wire, new(discoveryv3.DeltaDiscoveryRequest)); err != nil {
			b.Fatal(err)
		}
	}
}
