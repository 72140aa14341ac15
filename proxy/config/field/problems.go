package field

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Limits on what is believed of a control plane, ours included: what exceeds them is refused.
const (
	maxHeaderOps  = 128
	maxSANs       = 10_000
	maxRegexBytes = 1 << 10
	maxDuration   = 10 * 365 * 24 * time.Hour
)

// Problems remembers the first thing in a resource that cannot be done as asked, with the path of its field.
type Problems struct {
	path  string
	first *error
}

// New returns the Problems of a resource.
func New() Problems { return Problems{first: new(error)} }

// In returns the problems of a field.
func (p Problems) In(field string) Problems {
	if p.path != "" {
		field = p.path + "." + field
	}
	return Problems{path: field, first: p.first}
}

// At returns the problems of an element.
func (p Problems) At(field string, i int) Problems {
	return p.In(field + "[" + strconv.Itoa(i) + "]")
}

// Refuse notes that a field cannot be done as asked, unless something was refused before.
func (p Problems) Refuse(field, format string, args ...any) {
	if *p.first == nil {
		*p.first = fmt.Errorf("field %q: %s", p.In(field).path, fmt.Sprintf(format, args...))
	}
}

// Err is nil if there is no problem.
func (p Problems) Err() error { return *p.first }

// Unsupported refuses a field that is set but means something that is not done here.
func (p Problems) Unsupported(field string, set bool) {
	if set {
		p.Refuse(field, "is not supported")
	}
}

// Limit refuses lists longer than max.
func (p Problems) Limit(field string, n, most int) {
	if n > most {
		p.Refuse(field, "has %d elements, at most %d are allowed", n, most)
	}
}

// Duration of a field, absent if it is not set.
func (p Problems) Duration(field string, d *durationpb.Duration, absent time.Duration) time.Duration {
	if d == nil {
		return absent
	}
	value := d.AsDuration()
	if d.CheckValid() != nil || value < 0 || value > maxDuration {
		p.Refuse(field, "%ds is out of range", d.GetSeconds())
		return absent
	}
	return value
}

// Positive is Duration, but 0 is taken as absent.
func (p Problems) Positive(field string, d *durationpb.Duration, absent time.Duration) time.Duration {
	if value := p.Duration(field, d, absent); value > 0 {
		return value
	}
	return absent
}

// Unpack decodes a typed extension; false if it is not of into's type or is broken.
func (p Problems) Unpack(field string, packed *anypb.Any, into proto.Message) bool {
	if !packed.MessageIs(into) {
		p.Refuse(field, "%q is not supported", packed.GetTypeUrl())
		return false
	}
	if err := packed.UnmarshalTo(into); err != nil {
		p.Refuse(field, "cannot be decoded")
		return false
	}
	return true
}

// Regex compiles a pattern that must match the whole string.
func (p Problems) Regex(field, pattern string) *regexp.Regexp {
	return p.Compile(field, pattern, `^(?:`+pattern+`)$`)
}

// Compile is Regex with a pattern that may match a part; anchored is what is compiled.
func (p Problems) Compile(field, pattern, anchored string) *regexp.Regexp {
	if len(pattern) > maxRegexBytes {
		p.Refuse(field, "regex has %d bytes, at most %d are allowed", len(pattern), maxRegexBytes)
		return nil
	}
	if _, err := regexp.Compile(pattern); err != nil {
		p.Refuse(field, "regex: %v", err)
		return nil
	}
	compiled, err := regexp.Compile(anchored)
	if err != nil {
		p.Refuse(field, "regex: %v", err)
	}
	return compiled
}

// Port refuses what is no port, 0 too.
func (p Problems) Port(field string, port uint32) uint16 {
	if port == 0 || port > 65535 {
		p.Refuse(field, "port %d is out of range 1-65535", port)
		return 0
	}
	return uint16(port)
}

// Percent of a field, absent if it is not set; NaN and values outside 0..100 are refused.
func (p Problems) Percent(field string, pb *typev3.Percent, absent float64) float64 {
	if pb == nil {
		return absent
	}
	value := pb.GetValue()
	if !(value >= 0 && value <= 100) {
		p.Refuse(field, "%v is not a percentage", value)
		return absent
	}
	return value
}

// Permillion scales Envoy's FractionalPercent.
func (p Problems) Permillion(numerator uint32, denominator string) uint32 {
	scale := map[string]uint64{"HUNDRED": 10_000, "TEN_THOUSAND": 100, "MILLION": 1}[denominator]
	if scale == 0 {
		p.Refuse("denominator", "is not known")
	}
	return uint32(min(uint64(numerator)*scale, 1_000_000))
}
