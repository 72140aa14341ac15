// Package wire reads and writes protobuf's wire format by hand, for the few messages that are so many that the generated
// code is most of what they cost. The result must be that of the generated messages, which a property beside each user holds
// (https://protobuf.dev/programming-guides/encoding).
package wire
