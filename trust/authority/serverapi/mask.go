package serverapi

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// copyMasked copies from src to dst, of one type, the fields that mask names; a nil mask names all that it
// could. SPIRE's masks have one bool per field (or oneof) of the same name.
func copyMasked(dst, src, mask proto.Message) {
	to, from, m := dst.ProtoReflect(), src.ProtoReflect(), mask.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if m.IsValid() && !m.Get(field).Bool() {
			continue
		}
		if same := from.Descriptor().Fields().ByName(field.Name()); same != nil {
			copyField(to, from, same)
		} else if oneof := from.Descriptor().Oneofs().ByName(field.Name()); oneof != nil {
			copyOneof(to, from, oneof)
		}
	}
}

func copyField(to, from protoreflect.Message, field protoreflect.FieldDescriptor) {
	if from.Has(field) {
		to.Set(field, from.Get(field))
	} else {
		to.Clear(field)
	}
}

func copyOneof(to, from protoreflect.Message, oneof protoreflect.OneofDescriptor) {
	if held := to.WhichOneof(oneof); held != nil {
		to.Clear(held)
	}
	if given := from.WhichOneof(oneof); given != nil {
		to.Set(given, from.Get(given))
	}
}
