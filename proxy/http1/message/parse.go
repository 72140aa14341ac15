package message

import (
	"bytes"
	"strings"
)

// ParseRequest reads a head that a [Scan] delimited. scratch is where a path that is not normal is rewritten.
func ParseRequest(r *Request, head []byte, scratch []byte) ([]byte, error) {
	r.head.reset()
	line, rest := cutLine(head)
	if err := r.parseLine(line); err != nil {
		return scratch, err
	}
	if err := r.parseFields(rest); err != nil {
		return scratch, err
	}
	if err := r.resolveHost(); err != nil {
		return scratch, err
	}
	if err := r.frame(); err != nil {
		return scratch, err
	}
	return r.resolvePath(scratch)
}

// cutLine cuts the first line; Scan has seen to it that every line ends in CRLF.
func cutLine(b []byte) (line, rest []byte) {
	i := bytes.IndexByte(b, '\n')
	return b[:i-1], b[i+1:]
}

// parseLine: method SP request-target SP HTTP-version, single spaces (RFC 9112, section 3).
func (r *Request) parseLine(line []byte) error {
	method, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || len(method) == 0 || !all(method, isToken) {
		return Malformed("method")
	}
	target, version, ok := bytes.Cut(rest, []byte{' '})
	switch {
	case !ok || len(target) == 0:
		return Malformed("request line")
	case len(target) > maxTarget:
		return TooLarge("request target")
	case !all(target, isTarget):
		return Malformed("request target")
	}
	r.Method, r.Target = View(method), View(target)
	return r.parseVersion(version)
}

func (m *head) parseVersion(version []byte) error {
	switch string(version) {
	case "HTTP/1.1":
		m.minor = 1
	case "HTTP/1.0":
		m.minor = 0
	default:
		return Malformed("version")
	}
	return nil
}

func (m *head) parseFields(b []byte) error {
	for len(b) > 2 { // the empty line is left
		line, rest := cutLine(b)
		f, err := ParseField(line)
		if err != nil {
			return err
		}
		if len(m.Fields) == MaxFields {
			return TooLarge("more than 100 fields")
		}
		f.kind = kindOf(f.Name)
		m.Fields = append(m.Fields, f)
		if f.kind != kindOther {
			m.note(f)
		}
		b = rest
	}
	return m.dropNamed()
}

// ParseField reads a header or trailer line: no space before the colon, no folding (RFC 9112, section 5).
func ParseField(line []byte) (Field, error) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !all(line[:colon], isToken) {
		return Field{}, Malformed("field name")
	}
	value := trim(line[colon+1:])
	if !all(value, isValue) {
		return Field{}, Malformed("field value")
	}
	return Field{Name: View(line[:colon]), Value: View(value)}, nil
}

// note gathers what the fields say about the message itself.
func (m *head) note(f Field) {
	m.seen |= 1 << f.kind
	switch f.kind {
	case kindConnection:
		m.noteConnection(f.Value)
	case kindContentLength:
		m.lengths++
	case kindTransferEncoding:
		m.encodings++
	case kindUpgrade:
		m.upgrade = f.Value
	}
}

func (m *head) noteConnection(list string) {
	for list != "" {
		var t string
		t, list = token(list)
		switch {
		case equalFold(t, "close"):
			m.close = true
		case equalFold(t, "keep-alive"):
			m.keepAlive = true
		case equalFold(t, "upgrade"):
			m.upgradeToken = true
		case t != "":
			m.named = true
		}
	}
}

// dropNamed marks the fields that Connection names. One that names framing or routing is an attack.
func (m *head) dropNamed() error {
	if !m.named {
		return nil
	}
	for i := range m.Fields {
		if m.Fields[i].kind != kindConnection {
			continue
		}
		for t, list := token(m.Fields[i].Value); t != "" || list != ""; t, list = token(list) {
			if err := m.dropField(t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *head) dropField(name string) error {
	switch kindOf(name) {
	case kindTransferEncoding, kindContentLength, kindHost:
		return Malformed("connection names " + strings.ToLower(name))
	case kindOther, kindTE, kindRequestID, kindForwardedProto, kindUserAgent, kindClientCert:
	default:
		return nil
	}
	for i := range m.Fields {
		if equalFold(m.Fields[i].Name, name) {
			m.Fields[i].kind = kindHop
		}
	}
	return nil
}

// resolveHost: exactly one Host, and the absolute form must say the same (RFC 9112, section 3.2).
func (r *Request) resolveHost() error {
	hosts := 0
	for i := range r.Fields {
		if r.Fields[i].kind == kindHost {
			r.Host = r.Fields[i].Value
			hosts++
		}
	}
	if hosts != 1 || !validHost(r.Host) {
		return Malformed("host")
	}
	return nil
}

// Sendable tells whether a request that came by other means than a head could have come in one: its method and target
// are of the bytes that a request line may have, its target is not too long, and its host is one. HTTP/2 carries what
// HTTP/1.1 cannot, and a request line made of it would say something else than was authorised.
func Sendable(method, target, host string) bool {
	return method != "" && all(method, isToken) && len(target) <= maxTarget && all(target, isTarget) && validHost(host)
}

func validHost(host string) bool {
	if host == "" || len(host) > maxHost || !all(host, isHost) {
		return false
	}
	name := host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
		if !validPort(host[i+1:]) {
			return false
		}
	}
	if strings.HasPrefix(name, "[") {
		return strings.HasSuffix(name, "]") && !strings.ContainsAny(name[1:len(name)-1], "[]")
	}
	return name != "" && !strings.ContainsAny(name, "[]:")
}

func validPort(port string) bool {
	if len(port) == 0 || len(port) > 5 {
		return false
	}
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return false
		}
	}
	return true
}

// resolvePath takes the path out of the target (RFC 9112, section 3.2) and normalises it.
func (r *Request) resolvePath(scratch []byte) ([]byte, error) {
	path := r.Target
	switch {
	case r.Method == "CONNECT":
		return scratch, Malformed("connect is not offered")
	case path == "*":
		if r.Method != "OPTIONS" {
			return scratch, Malformed("request target")
		}
		r.Path, r.PathEnd = path, len(path)
		return scratch, nil
	case path[0] != '/':
		var err error
		if path, err = r.absolute(); err != nil {
			return scratch, err
		}
	}
	normal, out, ok := Normalize(scratch, path)
	if !ok {
		return out, Malformed("path")
	}
	r.Path, r.PathEnd = normal, len(normal)
	if i := strings.IndexByte(normal, '?'); i >= 0 {
		r.PathEnd = i
	}
	return out, nil
}

func (r *Request) absolute() (string, error) {
	rest := r.Target
	switch {
	case len(rest) > 7 && equalFold(rest[:7], "http://"):
		rest = rest[7:]
	case len(rest) > 8 && equalFold(rest[:8], "https://"):
		rest = rest[8:]
	default:
		return "", Malformed("request target")
	}
	host, path := rest, "/"
	if slash := strings.IndexByte(rest, '/'); slash >= 0 {
		host, path = rest[:slash], rest[slash:]
	}
	if !equalFold(host, r.Host) {
		return "", Malformed("host differs from the request target")
	}
	return path, nil
}
