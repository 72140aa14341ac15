package meshpb

import (
	"encoding/binary"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// Schema is a number of all fields that this program knows of objects. Programs with another one may drop fields of each
// other's objects, so that their digests of the same state can differ; it is never 0.
func Schema() uint64 { return schema() }

var schema = sync.OnceValue(func() uint64 {
	file := protodesc.ToFileDescriptorProto(pb.File_periplus_v1_mesh_proto)
	described, err := proto.MarshalOptions{Deterministic: true}.Marshal(file)
	if err != nil {
		panic(err) // a descriptor that is linked in
	}
	digest := DigestOf(described)
	return binary.BigEndian.Uint64(digest[:]) | 1
})
