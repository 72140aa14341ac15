package http2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/proxy/http2/upstream"
)

// stalled is how long a stream may take no bytes of a request at all, as over HTTP/1.1.
const stalled = 5 * time.Minute

// carried is a connection in memory that speaks HTTP/1.1 and carries one exchange over a stream of HTTP/2. The
// HTTP/1.1 side, with its deadlines, retries and records, treats it like any other upstream connection; closing it
// resets a stream that still runs.
type carried struct {
	net.Conn // from which the response is read
	far      net.Conn
	up       *upstream.Conn
	ctx      context.Context
	cancel   context.CancelFunc
	// sent has what was written. It has room for a request that is written at once, head, body and end, so that only a
	// body that is streamed waits for the upstream.
	sent chan []byte
	rest []byte // of what was received last
	over context.Context
	// enough: the request is wanted no more, because it is whole, or not going to be read.
	enough context.CancelFunc
	err    error // how the response ended; read after far was closed

	mu    sync.Mutex
	begun bool          // guarded by mu; the final response's head
	w     *bufio.Writer // to far; guarded by mu until begun
}

// Carry implements forward.Carrier.
func (s *Server) Carry(ctx context.Context, call *forward.Call, until time.Time) (net.Conn, string, error) {
	up, err := s.upstreams.Connect(ctx, call, true, until)
	if err != nil {
		return nil, "", err
	}
	near, far := net.Pipe()
	c := &carried{Conn: near, far: far, up: up, sent: make(chan []byte, 4), w: bufio.NewWriterSize(far, 16<<10)}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.over, c.enough = context.WithCancel(c.ctx)
	go c.run()
	return c, up.Peer, nil
}

// Read implements net.Conn.
func (c *carried) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && c.err != nil {
		err = c.err
	}
	return n, err
}

// Write implements net.Conn; its deadline is always the same.
func (c *carried) Write(p []byte) (int, error) {
	part := bytes.Clone(p)
	select {
	case c.sent <- part:
		return len(p), nil
	default:
	}
	late := time.NewTimer(stalled)
	defer late.Stop()
	select {
	case c.sent <- part:
		return len(p), nil
	case <-c.over.Done():
		return 0, net.ErrClosed
	case <-late.C:
		return 0, os.ErrDeadlineExceeded
	}
}

// Close implements net.Conn.
func (c *carried) Close() error {
	c.cancel()
	return c.Conn.Close()
}

// received reads what was written.
type received struct{ *carried }

func (r received) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		select {
		case r.rest = <-r.sent:
		case <-r.over.Done():
			return 0, net.ErrClosed
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// upload is a request's body. net/http closes it to have no more of it: that must end a Read that waits for the client.
type upload struct {
	io.Reader
	enough func()
}

func (u upload) Close() error {
	u.enough()
	return nil
}

func (c *carried) run() {
	defer c.far.Close()
	defer c.enough()
	request, err := http.ReadRequest(bufio.NewReader(received{c}))
	if err != nil { // given up before it was sent
		c.up.Release()
		c.err = err
		return
	}
	response, err := c.up.RoundTrip(c.translate(request))
	if err == nil {
		defer response.Body.Close()
		err = c.answer(request.Method, response)
	}
	c.err = reasonOf(err)
}

func reasonOf(err error) error {
	switch {
	case err == nil:
		return nil
	case refused(err):
		return errors.Join(forward.ErrRefused, err)
	case errors.As(err, new(http2.StreamError)):
		return errors.Join(forward.ErrReset, err)
	}
	return err
}

// translate makes the request of HTTP/2: Host becomes :authority, framing is HTTP/2's own; other fields of one hop
// were not sent here (RFC 9113, section 8.2.2).
func (c *carried) translate(r *http.Request) *http.Request {
	path, query, asked := strings.Cut(r.RequestURI, "?")
	r.URL = &url.URL{Scheme: "http", Host: "upstream", Opaque: path, RawQuery: query, ForceQuery: asked}
	r.RequestURI, r.TransferEncoding = "", nil
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = []string{""} // net/http adds its own otherwise
	}
	if r.Body != http.NoBody {
		r.Body = upload{r.Body, c.enough}
	}
	return r.WithContext(httptrace.WithClientTrace(c.ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(status int, header textproto.MIMEHeader) error {
			if status == http.StatusEarlyHints {
				go c.interim(http.Header(header)) // the connection's other streams must not wait for this client
			}
			return nil
		},
	}))
}

// interim passes 103 on as HTTP/1.1 does; nothing waits for other ones.
func (c *carried) interim(header http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		c.writeHead(http.StatusEarlyHints, header, "")
		_ = c.w.Flush() // if nobody reads, the exchange is over
	}
}

func (c *carried) writeHead(status int, header http.Header, framing string) {
	endHere(header)
	fmt.Fprintf(c.w, "HTTP/1.1 %03d %s\r\n%s", status, http.StatusText(status), framing)
	_ = header.Write(c.w)
	_, _ = c.w.WriteString("\r\n") // Flush tells
}

// answer writes the response; each part of its body as soon as it has come.
func (c *carried) answer(method string, r *http.Response) error {
	c.mu.Lock()
	c.begun = true
	c.mu.Unlock()
	framing := "Connection: close\r\n" // one exchange only
	var body io.Writer = c.w
	switch {
	case method == http.MethodHead, r.StatusCode == http.StatusNoContent, r.StatusCode == http.StatusNotModified:
		c.writeHead(r.StatusCode, r.Header, framing)
		return c.w.Flush()
	case r.ContentLength >= 0:
		r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	default:
		r.Header.Del("Content-Length")
		framing += "Transfer-Encoding: chunked\r\n"
		for name := range r.Trailer {
			r.Header.Add("Trailer", name)
		}
		body = httputil.NewChunkedWriter(c.w)
	}
	c.writeHead(r.StatusCode, r.Header, framing)
	if err := c.copyBody(body, r.Body); err != nil {
		return err
	}
	if chunks, ok := body.(io.Closer); ok {
		_ = chunks.Close()
		_ = r.Trailer.Write(c.w)
		_, _ = c.w.WriteString("\r\n")
	}
	return c.w.Flush()
}

func (c *carried) copyBody(w io.Writer, body io.Reader) error {
	buffer := make([]byte, 16<<10)
	for {
		if err := c.w.Flush(); err != nil {
			return err
		}
		n, err := body.Read(buffer)
		if n > 0 {
			_, _ = w.Write(buffer[:n]) // Flush tells
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			_ = c.w.Flush()
			return err
		}
	}
}
