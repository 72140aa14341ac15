package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Type is a resource type URL.
type Type string

// The types that the mesh serves. The first five are Envoy's; [MeshObject] is the feed to an agent, named by key.
const (
	Cluster    Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints  Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Listener   Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Route      Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	MeshObject Type = "type.googleapis.com/periplus.v1.Object"
)

// Version identifies a resource's content and nothing else, so that it means the same on every replica.
type Version [8]byte

// String is hexadecimal; it is what travels as the resource's version.
func (v Version) String() string { return hex.EncodeToString(v[:]) }

// Resource is one named resource, marshalled once and shared by all streams. Immutable.
type Resource struct {
	Name    string
	Version Version
	// Delta is a marshalled envoy.service.discovery.v3.Resource as it stands in a DeltaDiscoveryResponse: with tag
	// and length, so that a response is nothing but such slices in a row. Any, its tail, is the google.protobuf.Any.
	Delta, Any []byte
}

// NewResource marshals body.
func NewResource(t Type, name string, body proto.Message) Resource {
	return NewRawResource(t, name, Marshal(body))
}

// Marshal is deterministic: equal bodies are equal bytes, and have the same version.
func Marshal(body proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("xds: marshal %T: %v", body, err)) // our own translation made it
	}
	return data
}

// NewRawResource wraps a body that is already marshalled, as [Marshal] does.
func NewRawResource(t Type, name string, body []byte) Resource {
	sum := sha256.Sum256(body)
	version := Version(sum[:8])
	any := protowire.AppendTag(make([]byte, 0, len(t)+len(body)+16), 1, protowire.BytesType)
	any = protowire.AppendString(any, string(t))
	any = protowire.AppendTag(any, 2, protowire.BytesType)
	any = protowire.AppendBytes(any, body)
	text := version.String()
	size := 3*protowire.SizeTag(1) + protowire.SizeBytes(len(text)) + protowire.SizeBytes(len(name)) + protowire.SizeBytes(len(any))
	delta := protowire.AppendTag(make([]byte, 0, size+16), 2, protowire.BytesType)
	delta = protowire.AppendVarint(delta, uint64(size))
	delta = protowire.AppendTag(delta, 1, protowire.BytesType)
	delta = protowire.AppendString(delta, text)
	delta = protowire.AppendTag(delta, 3, protowire.BytesType)
	delta = protowire.AppendString(delta, name)
	delta = protowire.AppendTag(delta, 2, protowire.BytesType)
	delta = protowire.AppendBytes(delta, any)
	return Resource{Name: name, Version: version, Delta: delta, Any: delta[len(delta)-len(any):]}
}

// Catalog is what one client may see of a state S. Declared here, by the consumer; packages translate and meshpb
// have implementations. All methods are pure, and safe for concurrent use.
type Catalog[S any] interface {
	// Get returns a resource, or false if it does not exist for this client.
	Get(s S, t Type, name string) (Resource, bool)
	// Names yields every name of the type: what a wildcard subscription means.
	Names(s S, t Type) iter.Seq[string]
	// Changed yields at least every (type, name) whose resource may differ between the two states; more is
	// allowed, fewer is a bug.
	Changed(old, now S) iter.Seq2[Type, string]
}
