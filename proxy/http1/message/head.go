package message

import (
	"errors"
	"fmt"
)

// Limits of a head in bytes and fields (RFC 9110, section 5.4 leaves them to us; these are Envoy's defaults).
const (
	DefaultMaxHead = 60 << 10
	MaxFields      = 100
	maxTarget      = 16 << 10
	maxHost        = 255 + 6
)

// Field is one header line. Name has the sender's case.
type Field struct {
	Name, Value string
	kind        kind
}

// Forwarded tells whether the field goes on as it is: it neither ends at this hop nor is written by the proxy.
func (f *Field) Forwarded() bool { return f.kind.forwarded() }

// Errors of reading a message. All of them end the connection.
var (
	// ErrMalformed is wrapped by every refusal of what a peer sent.
	ErrMalformed = errors.New("malformed message")
	// ErrTooLarge is wrapped when a head exceeds a limit.
	ErrTooLarge = errors.New("head too large")
)

// Malformed wraps ErrMalformed and says what is.
func Malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// TooLarge wraps ErrTooLarge and says what is.
func TooLarge(what string) error { return fmt.Errorf("%w: %s", ErrTooLarge, what) }

// Lengths of a body beside a byte count: in chunks, or all until the connection ends.
const (
	Chunked    = -1
	UntilClose = -2
)

// head is what both heads have.
type head struct {
	Fields []Field // as received; [Field.Forwarded] tells which go on
	minor  byte    // HTTP/1.<minor>
	length int64   // of the body, or Chunked, or UntilClose

	lengths, encodings int  // how many of these fields there were
	close, keepAlive   bool // tokens of Connection
	upgradeToken       bool
	named              bool // Connection names other fields
	upgrade            string
	seen               uint32 // bit per kind
}

func (m *head) reset() {
	*m = head{Fields: m.Fields[:0]}
}

// Get returns the first value of a field, by any case of its name. Fields that end at this hop are not there.
func (m *head) Get(name string) (string, bool) {
	for i := range m.Fields {
		if m.Fields[i].kind != kindHop && equalFold(m.Fields[i].Name, name) {
			return m.Fields[i].Value, true
		}
	}
	return "", false
}

// Len and At list the fields that go on; what does not is an empty name.
func (m *head) Len() int { return len(m.Fields) }

// At returns field i.
func (m *head) At(i int) (name, value string) {
	if f := &m.Fields[i]; f.kind != kindHop && f.kind != kindConnection {
		return f.Name, f.Value
	}
	return "", ""
}

// Has tells whether there is a field.
func (m *head) Has(name string) bool {
	_, ok := m.Get(name)
	return ok
}

// find is Get for a field that the parser knows.
func (m *head) find(k kind) (string, bool) {
	if m.seen&(1<<k) == 0 {
		return "", false
	}
	for i := range m.Fields {
		if m.Fields[i].kind == k {
			return m.Fields[i].Value, true
		}
	}
	return "", false
}

// Length of the body in bytes, or Chunked or UntilClose; 0 if there can be none.
func (m *head) Length() int64 { return m.length }

// HTTP11 is false for a sender that speaks HTTP/1.0.
func (m *head) HTTP11() bool { return m.minor == 1 }

// ContentLength returns the field as it was received; a response to HEAD has one and no body.
func (m *head) ContentLength() (string, bool) { return m.find(kindContentLength) }

// Upgrade returns the protocol asked for, or switched to; "": none. Only a request without body can ask.
func (m *head) Upgrade() string { return m.upgrade }

// Request is a request's head. Its strings are views, see [View].
type Request struct {
	head
	Method string
	Target string // as sent
	Host   string // the authority; of the absolute form if that was used, which then equals the Host field
	// Path is Target's path and query, the path normalised: the one string to authorise, match and forward.
	Path string
	// PathEnd is where the query begins, at "?", or len(Path).
	PathEnd int

	expect bool // 100-continue
}

// PathOnly returns the normalised path without query.
func (r *Request) PathOnly() string { return r.Path[:r.PathEnd] }

// RequestID returns x-request-id.
func (r *Request) RequestID() (string, bool) { return r.find(kindRequestID) }

// ForwardedProto returns x-forwarded-proto.
func (r *Request) ForwardedProto() (string, bool) { return r.find(kindForwardedProto) }

// UserAgent returns user-agent.
func (r *Request) UserAgent() string {
	v, _ := r.find(kindUserAgent)
	return v
}

// ExpectsContinue tells whether the body comes only after 100 Continue was sent (RFC 9110, section 10.1.1).
func (r *Request) ExpectsContinue() bool { return r.expect }

// Idempotent tells whether the request may be sent twice without being asked (RFC 9110, section 9.2.2).
func (r *Request) Idempotent() bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return r.upgrade == ""
	}
	return false
}

// Response is a response's head. Its strings are views, see [View].
type Response struct {
	head
	Status int
	Reason string
}

// kind marks the fields that the proxy itself reads or writes.
type kind uint8

const (
	kindOther kind = iota
	kindHop        // ends at this hop
	kindConnection
	kindContentLength
	kindTransferEncoding
	kindHost
	kindUpgrade
	kindExpect
	kindTE
	kindRequestID
	kindForwardedProto
	kindUserAgent
	kindClientCert
)

// forwarded tells whether a field goes on as it is; the rest are hop-by-hop (RFC 9110, section 7.6.1) or rewritten.
func (k kind) forwarded() bool { return k == kindOther || k >= kindRequestID }

// kindOf is a switch on the length first: nearly every field is decided by one comparison.
func kindOf(name string) kind {
	switch len(name) {
	case 2:
		return match(name, "te", kindTE)
	case 4:
		return match(name, "host", kindHost)
	case 6:
		return match(name, "expect", kindExpect)
	case 7:
		return match(name, "upgrade", kindUpgrade)
	case 10:
		return either(name, "connection", kindConnection, "keep-alive", kindHop, "user-agent", kindUserAgent)
	case 12:
		return match(name, "x-request-id", kindRequestID)
	case 14:
		return match(name, "content-length", kindContentLength)
	case 16:
		return match(name, "proxy-connection", kindHop)
	case 17:
		return either(name, "transfer-encoding", kindTransferEncoding, "x-forwarded-proto", kindForwardedProto, "", 0)
	case 18:
		return match(name, "proxy-authenticate", kindHop)
	case 19:
		return match(name, "proxy-authorization", kindHop)
	case 23:
		return match(name, "x-forwarded-client-cert", kindClientCert)
	}
	return kindOther
}

func match(name, want string, k kind) kind {
	if equalFold(name, want) {
		return k
	}
	return kindOther
}

func either(name, a string, ka kind, b string, kb kind, c string, kc kind) kind {
	switch {
	case equalFold(name, a):
		return ka
	case equalFold(name, b):
		return kb
	case equalFold(name, c):
		return kc
	}
	return kindOther
}
