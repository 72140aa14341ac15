package config

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits on what is believed of a control plane, ours included: what exceeds them is refused.
const (
	maxResourceBytes = 8 << 20
	maxResources     = 50_000 // of one type
	maxEndpoints     = 100_000
	maxHosts         = 50_000 // virtual hosts and domains of a table
	maxRoutes        = 50_000
	maxChains        = 1_000
	maxFilters       = 32
	maxHeaderOps     = 128
	maxClusters      = 256 // of one weighted split
	maxMatches       = 64
	maxSANs          = 10_000
	maxRegexBytes    = 1 << 10
	maxConditions    = 10_000 // nodes of one RBAC filter
	maxDepth         = 32
	maxBodyBytes     = 4 << 10 // of a direct response
	maxDuration      = 10 * 365 * 24 * time.Hour
)

// problems remembers the first thing in a resource that cannot be done as asked, with the path of its field.
type problems struct {
	path  string
	first *error
}

func newProblems() problems { return problems{first: new(error)} }

// in returns the problems of a field.
func (p problems) in(field string) problems {
	if p.path != "" {
		field = p.path + "." + field
	}
	return problems{path: field, first: p.first}
}

// at returns the problems of an element.
func (p problems) at(field string, i int) problems {
	return p.in(field + "[" + strconv.Itoa(i) + "]")
}

func (p problems) refuse(field, format string, args ...any) {
	if *p.first == nil {
		*p.first = fmt.Errorf("field %q: %s", p.in(field).path, fmt.Sprintf(format, args...))
	}
}

// err is nil if there is no problem.
func (p problems) err() error { return *p.first }

// unsupported refuses a field that is set but means something that is not done here.
func (p problems) unsupported(field string, set bool) {
	if set {
		p.refuse(field, "is not supported")
	}
}

// limit refuses lists longer than max.
func (p problems) limit(field string, n, most int) {
	if n > most {
		p.refuse(field, "has %d elements, at most %d are allowed", n, most)
	}
}

// duration of a field, absent if it is not set.
func (p problems) duration(field string, d *durationpb.Duration, absent time.Duration) time.Duration {
	if d == nil {
		return absent
	}
	value := d.AsDuration()
	if d.CheckValid() != nil || value < 0 || value > maxDuration {
		p.refuse(field, "%ds is out of range", d.GetSeconds())
		return absent
	}
	return value
}

// positive is duration, but 0 is taken as absent.
func (p problems) positive(field string, d *durationpb.Duration, absent time.Duration) time.Duration {
	if value := p.duration(field, d, absent); value > 0 {
		return value
	}
	return absent
}

// unpack decodes a typed extension; false if it is not of into's type or is broken.
func (p problems) unpack(field string, packed *anypb.Any, into proto.Message) bool {
	if !packed.MessageIs(into) {
		p.refuse(field, "%q is not supported", packed.GetTypeUrl())
		return false
	}
	if err := packed.UnmarshalTo(into); err != nil {
		p.refuse(field, "cannot be decoded")
		return false
	}
	return true
}

// regex compiles a pattern that must match the whole string.
func (p problems) regex(field, pattern string) *regexp.Regexp {
	return p.compile(field, pattern, `^(?:`+pattern+`)$`)
}

func (p problems) compile(field, pattern, anchored string) *regexp.Regexp {
	if len(pattern) > maxRegexBytes {
		p.refuse(field, "regex has %d bytes, at most %d are allowed", len(pattern), maxRegexBytes)
		return nil
	}
	if _, err := regexp.Compile(pattern); err != nil {
		p.refuse(field, "regex: %v", err)
		return nil
	}
	compiled, err := regexp.Compile(anchored)
	if err != nil {
		p.refuse(field, "regex: %v", err)
	}
	return compiled
}

func (p problems) port(field string, port uint32) uint16 {
	if port == 0 || port > 65535 {
		p.refuse(field, "port %d is out of range 1-65535", port)
		return 0
	}
	return uint16(port)
}

// number is a wrapped integer, absent if it is not set.
func number(v *wrapperspb.UInt32Value, absent uint32) uint32 {
	if v == nil {
		return absent
	}
	return v.GetValue()
}

func number64(v *wrapperspb.UInt64Value, absent uint64) uint64 {
	if v == nil {
		return absent
	}
	return v.GetValue()
}

// atLeastOne is number, but 0 is taken as absent.
func atLeastOne(v *wrapperspb.UInt32Value, absent uint32) uint32 {
	if v.GetValue() == 0 {
		return absent
	}
	return v.GetValue()
}

func boolean(v *wrapperspb.BoolValue, absent bool) bool {
	if v == nil {
		return absent
	}
	return v.GetValue()
}
