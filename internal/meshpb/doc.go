// Package meshpb is the only converter between package mesh and its protobuf form in api/periplus/v1.
//
// [Decode] turns what came over a wire or from a disk into a validated mesh object: absent and unknown fields
// are tolerated, nonsense is an error that names the field, and nothing panics (fuzzed). [Encode] of what Decode
// returned is the same bytes again.
package meshpb
