package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// Each calls visit with the number and value of each string, bytes or message of a message, in their order, and passes over
// all else. An error, also one of visit, ends it; what is malformed is one, as for the generated code.
func Each(message []byte, visit func(field protowire.Number, value []byte) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if field > protowire.MaxValidNumber {
			return fmt.Errorf("field number %d", field)
		}
		value := message[n:]
		size := protowire.ConsumeFieldValue(field, kind, value)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(value)
			if err := visit(field, value); err != nil {
				return err
			}
		}
		message = message[n+size:]
	}
	return nil
}
