package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/http1/message"
)

// script is a connection that reads fixed bytes, at most step at a time.
type script struct {
	net.Conn
	in   []byte
	step int
	out  bytes.Buffer
}

func (s *script) Read(b []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, io.EOF
	}
	n := len(b)
	if s.step > 0 {
		n = min(n, s.step)
	}
	n = copy(b[:n], s.in)
	s.in = s.in[n:]
	return n, nil
}
func (s *script) Write(b []byte) (int, error)      { return s.out.Write(b) }
func (s *script) Close() error                     { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }

type read struct{ method, target, host, body string }

// readAll reads requests until the first error and returns what was accepted whole.
func readAll(in []byte, step int) (out []read, err error) {
	c := NewConn(&script{in: in, step: step}, &Buffers{}, 0)
	defer c.Release()
	for {
		r, err := c.ReadRequest()
		if err != nil {
			return out, err
		}
		got := read{strings.Clone(r.Method), strings.Clone(r.Target), strings.Clone(r.Host), ""}
		var body []byte
		for {
			data, err := c.body.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return out, err
			}
			body = append(body, data...)
		}
		got.body = string(body)
		out = append(out, got)
		c.next()
	}
}

func TestAccepted(t *testing.T) {
	for name, in := range map[string]string{
		"plain":           "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"length":          "POST /x?y=1 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc",
		"chunked":         "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\n",
		"chunked case":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		"pipelined":       "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: c\r\n\r\n",
		"absolute":        "GET HTTP://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
		"options":         "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"1.0":             "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
		"ipv6":            "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
		"empty value":     "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
		"tabs in value":   "GET / HTTP/1.1\r\nHost: \ta\t \r\nX: a\tb\r\n\r\n",
		"obs-text":        "GET / HTTP/1.1\r\nHost: a\r\nX: \xff\r\n\r\n",
		"leading zeros":   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 003\r\n\r\nabc",
		"connection list": "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, x-a ,, x-b\r\nX-A: 1\r\n\r\n",
	} {
		for _, step := range []int{0, 1, 7} {
			got, err := readAll([]byte(in), step)
			if err != io.EOF || len(got) == 0 {
				t.Errorf("%s (step %d): %q %v", name, step, got, err)
			}
			if want := readNetHTTP([]byte(in), len(got)); !equal(got, want) {
				t.Errorf("%s (step %d): got %q, net/http reads %q", name, step, got, want)
			}
		}
	}
}

// The cases are those on which servers are known to differ (RFC 9112, section 11; RFC 9110, section 17).
var smuggling = map[string]string{
	"CL.TE":                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
	"TE.CL":                    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGPOST",
	"TE.TE x":                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
	"TE twice":                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE list":                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
	"TE gzip":                  "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"TE identity":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
	"TE x":                     "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"TE space before colon":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
	"TE tab before colon":      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
	"TE leading space":         "POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE vertical tab":          "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\vchunked\r\n\r\n0\r\n\r\n",
	"TE nul":                   "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n",
	"TE quoted":                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
	"TE parameter":             "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
	"TE empty":                 "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
	"TE trailing comma":        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n",
	"TE folded":                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
	"TE in 1.0":                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"TE named in Connection":   "POST / HTTP/1.1\r\nHost: a\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"CL named in Connection":   "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, content-length\r\nContent-Length: 1\r\n\r\na",
	"Host named in Connection": "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
	"CL.CL":                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	"CL same twice":            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
	"CL list":                  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
	"CL plus":                  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
	"CL minus":                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
	"CL hex":                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
	"CL empty":                 "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
	"CL inner space":           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na",
	"CL huge":                  "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
	"CL underscore":            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\n",
	"CL space before colon":    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\na",
	"CL nul":                   "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\x00\r\n\r\na",
	"CL decimal":               "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\na",
	"bare LF line":             "GET / HTTP/1.1\nHost: a\n\n",
	"bare LF one header":       "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
	"bare LF end":              "GET / HTTP/1.1\r\nHost: a\r\n\n",
	"bare CR in value":         "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
	"bare CR in line":          "GET / HTTP/1.1\rX: y\r\nHost: a\r\n\r\n",
	"CRCRLF":                   "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
	"obs-fold":                 "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
	"nul in value":             "GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
	"nul in name":              "GET / HTTP/1.1\r\nHost: a\r\nX\x00: y\r\n\r\n",
	"no colon":                 "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
	"empty name":               "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
	"leading empty line":       "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"no host":                  "GET / HTTP/1.1\r\n\r\n",
	"two hosts":                "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
	"same host twice":          "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
	"empty host":               "GET / HTTP/1.1\r\nHost:\r\n\r\n",
	"host userinfo":            "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
	"host list":                "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
	"host path":                "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
	"host port":                "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
	"host two ports":           "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
	"absolute differs":         "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"absolute other scheme":    "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"absolute userinfo":        "GET http://x@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"target space":             "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
	"target two spaces":        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
	"target tab":               "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"target fragment":          "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
	"target backslash":         "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n",
	"target 8 bit":             "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
	"target encoded slash":     "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n",
	"target encoded backslash": "GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n",
	"target encoded nul":       "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
	"target broken escape":     "GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n",
	"target star":              "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
	"target relative":          "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
	"connect":                  "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
	"method":                   "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
	"version 0.9":              "GET /\r\nHost: a\r\n\r\n",
	"version 1.2":              "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
	"version 2":                "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
	"version case":             "GET / http/1.1\r\nHost: a\r\n\r\n",
	"version trailing":         "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
	"expect":                   "GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
	"chunk bare LF":            chunky("3\nabc\r\n0\r\n\r\n"),
	"chunk bare LF after":      chunky("3\r\nabc\n0\r\n\r\n"),
	"chunk too long":           chunky("3\r\nabcd\r\n0\r\n\r\n"),
	"chunk hex prefix":         chunky("0x3\r\nabc\r\n0\r\n\r\n"),
	"chunk sign":               chunky("+3\r\nabc\r\n0\r\n\r\n"),
	"chunk space":              chunky("3 \r\nabc\r\n0\r\n\r\n"),
	"chunk leading space":      chunky(" 3\r\nabc\r\n0\r\n\r\n"),
	"chunk empty":              chunky("\r\nabc\r\n0\r\n\r\n"),
	"chunk overflow":           chunky("10000000000000003\r\nabc\r\n0\r\n\r\n"),
	"chunk ext bare LF":        chunky("3;a\n\r\nabc\r\n0\r\n\r\n"),
	"chunk ext bare CR":        chunky("3;a\rb\r\nabc\r\n0\r\n\r\n"),
	"chunk ext nul":            chunky("3;\x00\r\nabc\r\n0\r\n\r\n"),
	"chunk ext long":           chunky("3;" + strings.Repeat("a", 300) + "\r\nabc\r\n0\r\n\r\n"),
	"trailer bare LF":          chunky("0\r\nx: y\n\r\n"),
	"trailer folded":           chunky("0\r\nx: y\r\n z\r\n\r\n"),
	"trailer no colon":         chunky("0\r\nxy\r\n\r\n"),
	"trailers many":            chunky("0\r\n" + strings.Repeat("a: b\r\n", 200) + "\r\n"),
	"fields many":              "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("a: b\r\n", 100) + "\r\n",
	"fields large":             "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 61<<10) + "\r\n\r\n",
	"target large":             "GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n",
}

func chunky(body string) string {
	return "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
}

func TestSmuggling(t *testing.T) {
	if len(smuggling) < 60 {
		t.Fatalf("%d cases", len(smuggling))
	}
	for name, in := range smuggling {
		for _, step := range []int{0, 1} {
			got, err := readAll([]byte(in+"GET /next HTTP/1.1\r\nHost: z\r\n\r\n"), step)
			if len(got) > 0 || !errors.Is(err, message.ErrMalformed) && !errors.Is(err, message.ErrTooLarge) {
				t.Errorf("%s (step %d): accepted %q, %v", name, step, got, err)
			}
		}
	}
}

func equal(a, b []read) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// readNetHTTP reads n requests as net/http does.
func readNetHTTP(in []byte, n int) (out []read) {
	b := bufio.NewReader(bytes.NewReader(in))
	for range n {
		r, err := http.ReadRequest(b)
		if err != nil {
			return append(out, read{target: err.Error()})
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return append(out, read{body: err.Error()})
		}
		out = append(out, read{r.Method, r.RequestURI, r.Host, string(body)})
	}
	return out
}

func FuzzRequest(f *testing.F) {
	for _, in := range smuggling {
		if len(in) < 1000 {
			f.Add([]byte(in))
		}
	}
	f.Add([]byte("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\nhi"))
	f.Add([]byte(chunky("3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nx-t: 1\r\n\r\nGET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := readAll(in, 0)
		if slow, slowErr := readAll(in, 1); !equal(got, slow) || (err == io.EOF) != (slowErr == io.EOF) {
			t.Fatalf("depends on segments: %q %v, %q %v", got, err, slow, slowErr)
		}
		want := readNetHTTP(in, len(got))
		for i := range got {
			if i < len(want) && strings.HasPrefix(strings.ToLower(got[i].target), "http") {
				got[i].host, want[i].host = strings.ToLower(got[i].host), strings.ToLower(want[i].host)
			}
		}
		if !equal(got, want) {
			t.Fatalf("we read %q, net/http %q", got, want)
		}
	})
}

// What we write, net/http must read as what we understood.
func FuzzForwarded(f *testing.F) {
	f.Add([]byte("GET /a/../b?x HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nX-A: 1\r\nY: 2\r\n\r\n"))
	f.Add([]byte(chunky("3\r\nabc\r\n0\r\n\r\n")))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := NewConn(&script{in: in}, &Buffers{}, 0)
		r, err := c.ReadRequest()
		if err != nil {
			return
		}
		sink := &script{}
		up := NewConn(sink, &Buffers{}, 0)
		up.out = message.AppendRequest(nil, r, &message.Edit{})
		if readErr, _ := relay(up, &c.body, r.Length() == message.Chunked); readErr != nil {
			return
		}
		sent := bufio.NewReader(&sink.out)
		got, err := http.ReadRequest(sent)
		if err != nil {
			t.Fatalf("sent what net/http refuses: %v", err)
		}
		body, err := io.ReadAll(got.Body)
		if err != nil || got.Method != r.Method || got.RequestURI != r.Path || got.Host != r.Host || int64(len(body)) != c.body.total {
			t.Fatalf("sent %q, net/http reads %s %s %s %q (%v)", sink.out.String(), got.Method, got.RequestURI, got.Host, body, err)
		}
		if _, err := sent.ReadByte(); err != io.EOF {
			t.Fatal("sent more than one request")
		}
	})
}

func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"), "GET")
	f.Add([]byte("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "GET")
	f.Add([]byte("HTTP/1.0 304 x\r\nContent-Length: 2\r\n\r\n"), "HEAD")
	f.Fuzz(func(t *testing.T, in []byte, method string) {
		c := NewConn(&script{in: in}, &Buffers{}, 0)
		r, err := c.ReadResponse(method)
		if err != nil || r.Status == 101 || strings.HasPrefix(string(in), "HTTP/1.1 1") {
			return
		}
		var body []byte
		for {
			data, err := c.body.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			body = append(body, data...)
		}
		want, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(in)), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		wantBody, err := io.ReadAll(want.Body)
		if err != nil || want.StatusCode != r.Status || !bytes.Equal(body, wantBody) {
			t.Fatalf("we read %d %q, net/http %d %q %v", r.Status, body, want.StatusCode, wantBody, err)
		}
	})
}

// However a body is cut into chunks and reads, it passes through a buffer of one size, which is large if the body is.
func TestBufferOfALongBody(t *testing.T) {
	for _, head := range []int{10, 3000} {
		for _, chunk := range []int{1, 7, 512, 100 << 10} {
			one := fmt.Sprintf("%x\r\n%s\r\n", chunk, strings.Repeat("a", chunk))
			in := "POST / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", head) + "\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat(one, 4<<20/len(one)) + "0\r\n\r\n"
			c := NewConn(&script{in: []byte(in)}, &Buffers{}, 0)
			if _, err := c.ReadRequest(); err != nil {
				t.Fatal(err)
			}
			smallest, largest := 1<<30, 0
			for {
				_, err := c.body.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				largest = max(largest, len(c.buf))
				if c.body.total > 256<<10 {
					smallest = min(smallest, len(c.buf))
				}
			}
			if smallest != largeBuffer || largest != largeBuffer {
				t.Errorf("head of %d bytes, chunks of %d: buffers of %d to %d bytes", head, chunk, smallest, largest)
			}
		}
	}
}

func BenchmarkReadRequest(b *testing.B) {
	in := []byte("GET /catalog/items?id=1 HTTP/1.1\r\nHost: catalog.shop\r\nUser-Agent: bench\r\nAccept: */*\r\nx-request-id: 7\r\n\r\n")
	s := &script{}
	c := NewConn(s, &Buffers{}, 0)
	b.ReportAllocs()
	for b.Loop() {
		s.in = in
		if _, err := c.ReadRequest(); err != nil {
			b.Fatal(err)
		}
		c.next()
	}
}
