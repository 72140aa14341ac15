package oracle

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// request is one request to a side.
type request struct {
	method, path string // GET, /
	host         string // the case's first domain
	headers      []string
	body         string
	// raw replaces all of it; "ID" in it stands for the request's headers of identification.
	raw string
	h2  bool
	// from is the client's own address; "" is any.
	from string
	// then is sent after the response's head.
	then string
}

// answer is what came back.
type answer struct {
	id      string
	status  int
	headers http.Header
	trailer http.Header
	body    string
	err     string // why the response is not whole
	took    time.Duration
	closed  bool // the connection was closed after it
	interim []int
}

// link is a kept connection to a side.
type link struct {
	conn   net.Conn
	reader *bufio.Reader
}

func dial(address, from string) (*link, error) {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	conn, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	return &link{conn, bufio.NewReader(conn)}, nil
}

func (r *request) bytes(id string) []byte {
	identity := fmt.Sprintf("x-oracle: %s\r\nx-request-id: %s", id, id)
	if strings.Contains(r.raw, "\r") {
		return []byte(strings.ReplaceAll(r.raw, "ID", identity))
	}
	if r.raw != "" {
		return []byte(strings.ReplaceAll(strings.ReplaceAll(r.raw, "\n", "\r\n"), "ID", identity))
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", r.method, r.path, r.host, identity)
	for _, h := range r.headers {
		b.WriteString(h + "\r\n")
	}
	if r.body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n" + r.body)
	return b.Bytes()
}

// roundTrip sends data and reads one response.
func (l *link) roundTrip(data []byte, method, then string) (a answer) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	_ = l.conn.SetDeadline(began.Add(8 * time.Second))
	if _, err := l.conn.Write(data); err != nil {
		return answer{err: "write"}
	}
	response, err := http.ReadResponse(l.reader, &http.Request{Method: method})
	for err == nil && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
		a.interim = append(a.interim, response.StatusCode)
		if response.StatusCode == http.StatusContinue {
			_, _ = l.conn.Write([]byte(then))
		}
		response, err = http.ReadResponse(l.reader, &http.Request{Method: method})
	}
	if err != nil {
		a.err, a.closed = "no response: "+cause(err), true
		return a
	}
	a.status, a.headers, a.closed = response.StatusCode, response.Header, response.Close
	if len(response.TransferEncoding) > 0 {
		a.headers.Set("Transfer-Encoding", strings.Join(response.TransferEncoding, ","))
	}
	if a.status == http.StatusSwitchingProtocols {
		io.WriteString(l.conn, then)
		rest := make([]byte, len(then))
		_, err := io.ReadFull(l.reader, rest)
		a.body, a.err, a.closed = string(rest), cause(err), true
		return a
	}
	body, err := io.ReadAll(response.Body)
	a.body, a.trailer, a.err = string(body), response.Trailer, cause(err)
	return a
}

func cause(err error) string {
	var timeout net.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return "closed"
}

// overHTTP2 sends the request with prior knowledge.
func overHTTP2(address string, r *request, id string) (a answer) {
	began := time.Now()
	defer func() { a.took = time.Since(began) }()
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	out, err := http.NewRequest(r.method, "http://"+address+r.path, body)
	if err != nil {
		return answer{err: err.Error()}
	}
	out.Host = r.host
	for _, h := range append([]string{"x-oracle: " + id, "x-request-id: " + id, "user-agent: oracle"}, r.headers...) {
		name, value, _ := strings.Cut(h, ":")
		out.Header.Add(name, strings.TrimSpace(value))
	}
	client := &http.Client{Transport: transport, Timeout: 8 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(out)
	if err != nil {
		return answer{err: "no response: " + cause(err)}
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, headers: response.Header, body: string(data), trailer: response.Trailer, err: cause(err)}
}
