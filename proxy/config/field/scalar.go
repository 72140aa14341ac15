package field

import (
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Number is a wrapped integer, absent if it is not set.
func Number(v *wrapperspb.UInt32Value, absent uint32) uint32 {
	if v == nil {
		return absent
	}
	return v.GetValue()
}

// Number64 is Number for 64 bits.
func Number64(v *wrapperspb.UInt64Value, absent uint64) uint64 {
	if v == nil {
		return absent
	}
	return v.GetValue()
}

// AtLeastOne is Number, but 0 is taken as absent.
func AtLeastOne(v *wrapperspb.UInt32Value, absent uint32) uint32 {
	if v.GetValue() == 0 {
		return absent
	}
	return v.GetValue()
}

// Boolean is a wrapped one, absent if it is not set.
func Boolean(v *wrapperspb.BoolValue, absent bool) bool {
	if v == nil {
		return absent
	}
	return v.GetValue()
}

// Text of a metadata value, "" if it is something else.
func Text(v *structpb.Value) string { return v.GetStringValue() }

// TypeOf is the full name of the message in an extension.
func TypeOf(packed *anypb.Any) string {
	return string(packed.MessageName())
}
