package message

// frame decides how long a request's body is (RFC 9112, section 6.3), refusing whatever could be read two ways.
func (r *Request) frame() error {
	if err := r.frameCommon(); err != nil {
		return err
	}
	if r.length == UntilClose {
		r.length = 0
	}
	if err := r.frameExpect(); err != nil {
		return err
	}
	if !r.upgradeToken || r.length != 0 || r.minor == 0 || !offeredUpgrade(r.upgrade) {
		r.upgrade = ""
	}
	return nil
}

// offeredUpgrade: HTTP versions are not passed on, or a request could hide in the tunnel.
func offeredUpgrade(protocol string) bool {
	if protocol == "" || !all(protocol, isToken) { // a list, or a version, is not offered
		return false
	}
	return !(len(protocol) >= 2 && lower(protocol[0]) == 'h' && (protocol[1] == '2' || equalFold(protocol, "http")))
}

func (r *Request) frameExpect() error {
	value, ok := r.find(kindExpect)
	if !ok {
		return nil
	}
	if !equalFold(value, "100-continue") {
		return Malformed("expectation")
	}
	r.expect = r.length != 0 && r.minor == 1
	return nil
}

// frameCommon sets length, to UntilClose if there is neither field.
func (m *head) frameCommon() error {
	m.length = UntilClose
	switch {
	case m.lengths > 1:
		return Malformed("several content-length")
	case m.encodings > 1:
		return Malformed("several transfer-encoding")
	case m.encodings == 1 && m.lengths == 1:
		return Malformed("content-length with transfer-encoding")
	case m.encodings == 1:
		return m.frameEncoded()
	case m.lengths == 1:
		value, _ := m.find(kindContentLength)
		n, ok := parseLength(value)
		if !ok {
			return Malformed("content-length")
		}
		m.length = n
	}
	return nil
}

func (m *head) frameEncoded() error {
	value, _ := m.find(kindTransferEncoding)
	switch {
	case m.minor == 0:
		return Malformed("transfer-encoding in HTTP/1.0")
	case !equalFold(value, "chunked"):
		return Malformed("transfer-encoding")
	}
	m.length = Chunked
	return nil
}

// parseLength: digits only, below 10^18.
func parseLength(s string) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// ParseResponse reads a head that a [Scan] delimited; method is that of the request it answers.
func ParseResponse(r *Response, head []byte, method string) error {
	r.head.reset()
	line, rest := cutLine(head)
	if err := r.parseLine(line); err != nil {
		return err
	}
	if err := r.parseFields(rest); err != nil {
		return err
	}
	if !r.upgradeToken {
		r.upgrade = ""
	}
	if err := r.frameCommon(); err != nil {
		return err
	}
	if method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304 {
		r.length = 0
	}
	return nil
}

// parseLine: HTTP-version SP 3DIGIT [SP reason] (RFC 9112, section 4).
func (r *Response) parseLine(line []byte) error {
	if len(line) < 12 || line[8] != ' ' || (len(line) > 12 && line[12] != ' ') {
		return Malformed("status line")
	}
	if err := r.parseVersion(line[:8]); err != nil {
		return err
	}
	status := 0
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return Malformed("status")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 || status > 599 {
		return Malformed("status")
	}
	r.Status, r.Reason = status, ""
	if len(line) > 13 {
		if !all(line[13:], isValue) {
			return Malformed("reason")
		}
		r.Reason = View(line[13:])
	}
	return nil
}

// Keeps tells whether the sender keeps the connection after this message (RFC 9112, section 9.3).
func (m *head) Keeps() bool {
	if m.close || m.length == UntilClose {
		return false
	}
	return m.minor == 1 || m.keepAlive
}
