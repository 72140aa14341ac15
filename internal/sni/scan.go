package sni

// RFC 8446, sections 4, 4.1.2 and 5.1; RFC 6066, section 3; RFC 7301.
const (
	recordHandshake  = 22
	recordHeader     = 5
	recordMax        = 1 << 14
	handshakeHello   = 1
	handshakeHeader  = 4
	extensionName    = 0
	extensionALPN    = 16
	extensionECH     = 0xfe0d
	maxExtensions    = 256
	nameTypeHostname = 0
)

// scanner puts the handshake message together from records, each of which it looks at once.
type scanner struct {
	next    int    // where in the buffer the next record begins
	message []byte // of earlier records
}

// scan returns the ClientHello's body, or nil if more bytes are needed.
func (s *scanner) scan(buf []byte) ([]byte, error) {
	for {
		record := buf[s.next:]
		if err := checkHeader(record, s.next == 0); err != nil {
			return nil, err
		}
		if len(record) < recordHeader {
			return nil, nil
		}
		length := int(record[3])<<8 | int(record[4])
		if s.next+recordHeader+length > MaxHello {
			return nil, ErrTooLong
		}
		if len(record) < recordHeader+length {
			return nil, nil
		}
		s.next += recordHeader + length
		s.add(record[recordHeader : recordHeader+length])
		if body, err := whole(s.message); body != nil || err != nil {
			return body, err
		}
	}
}

// add copies only if there is more than one record.
func (s *scanner) add(fragment []byte) {
	if s.message == nil {
		s.message = fragment[:len(fragment):len(fragment)]
		return
	}
	s.message = append(s.message, fragment...)
}

// checkHeader looks at as much of a record header as is there, so that other protocols are told by their first byte.
func checkHeader(record []byte, first bool) error {
	bad := ErrMalformed
	if first {
		bad = ErrNotTLS
	}
	switch {
	case len(record) >= 1 && record[0] != recordHandshake, len(record) >= 2 && record[1] != 3:
		return bad
	case len(record) < recordHeader:
		return nil
	}
	if length := int(record[3])<<8 | int(record[4]); length == 0 || length > recordMax {
		return ErrMalformed
	}
	return nil
}

// whole returns the body of the message once it is complete.
func whole(message []byte) ([]byte, error) {
	if message[0] != handshakeHello {
		return nil, ErrMalformed
	}
	if len(message) < handshakeHeader {
		return nil, nil
	}
	length := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
	if length > MaxHello {
		return nil, ErrTooLong
	}
	if len(message) < handshakeHeader+length {
		return nil, nil
	}
	return message[handshakeHeader : handshakeHeader+length], nil
}

func parse(body []byte) (Hello, error) {
	c := cursor(body)
	_, version := c.take(2)
	_, random := c.take(32)
	_, session := c.vector8()
	suites, hasSuites := c.vector16()
	_, compression := c.vector8()
	if !version || !random || !session || !hasSuites || len(suites)%2 != 0 || !compression {
		return Hello{}, ErrMalformed
	}
	if len(c) == 0 {
		return Hello{}, ErrNoServerName // no extensions at all
	}
	list, ok := c.vector16()
	if !ok || len(c) != 0 {
		return Hello{}, ErrMalformed
	}
	return parseExtensions(cursor(list))
}

func parseExtensions(list cursor) (Hello, error) {
	var hello Hello
	var seen seenExtensions
	for len(list) > 0 {
		kind, hasKind := list.uint16()
		data, hasData := list.vector16()
		if !hasKind || !hasData || !seen.add(kind) || !hello.extension(kind, cursor(data)) {
			return Hello{}, ErrMalformed
		}
	}
	if hello.ServerName == "" {
		return hello, ErrNoServerName
	}
	return hello, nil
}

// seenExtensions finds duplicates (RFC 8446, section 4.2), which two parsers may read differently.
type seenExtensions struct {
	kinds [maxExtensions]uint16
	n     int
}

func (s *seenExtensions) add(kind uint16) bool {
	for _, other := range s.kinds[:s.n] {
		if other == kind {
			return false
		}
	}
	if s.n == maxExtensions {
		return false
	}
	s.kinds[s.n] = kind
	s.n++
	return true
}

// extension is false if the extension is malformed.
func (h *Hello) extension(kind uint16, data cursor) (ok bool) {
	switch kind {
	case extensionName:
		h.ServerName, ok = parseName(data)
		return ok
	case extensionALPN:
		h.alpn, ok = parseALPN(data)
		return ok
	case extensionECH:
		h.Encrypted = true
	}
	return true
}

// parseName takes the one host name; other name types do not exist and are skipped.
func parseName(data cursor) (name string, ok bool) {
	list, ok := data.vector16()
	if !ok || len(list) == 0 || len(data) != 0 {
		return "", false
	}
	for c := cursor(list); len(c) > 0; {
		kind, hasKind := c.take(1)
		value, hasValue := c.vector16()
		if !hasKind || !hasValue || len(value) == 0 {
			return "", false
		}
		if kind[0] != nameTypeHostname {
			continue
		}
		if name != "" || value[len(value)-1] == '.' {
			return "", false
		}
		name = string(value)
	}
	return name, true
}

func parseALPN(data cursor) (list []byte, ok bool) {
	list, ok = data.vector16()
	if !ok || len(list) == 0 || len(data) != 0 {
		return nil, false
	}
	for c := cursor(list); len(c) > 0; {
		if protocol, ok := c.vector8(); !ok || len(protocol) == 0 {
			return nil, false
		}
	}
	return list, true
}

// cursor is what is left to read.
type cursor []byte

func (c *cursor) take(n int) ([]byte, bool) {
	if len(*c) < n {
		return nil, false
	}
	taken := (*c)[:n]
	*c = (*c)[n:]
	return taken, true
}

func (c *cursor) uint16() (uint16, bool) {
	b, ok := c.take(2)
	if !ok {
		return 0, false
	}
	return uint16(b[0])<<8 | uint16(b[1]), true
}

func (c *cursor) vector8() ([]byte, bool) {
	n, ok := c.take(1)
	if !ok {
		return nil, false
	}
	return c.take(int(n[0]))
}

func (c *cursor) vector16() ([]byte, bool) {
	n, ok := c.uint16()
	if !ok {
		return nil, false
	}
	return c.take(int(n))
}
