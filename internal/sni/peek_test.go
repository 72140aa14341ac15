package sni

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const name = "outbound_.80_._.catalog.shop.svc.cluster.local"

// oneWay is a connection that reads r and records what is written.
type oneWay struct {
	net.Conn
	r io.Reader
	w bytes.Buffer
}

func (o *oneWay) Read(b []byte) (int, error)       { return o.r.Read(b) }
func (o *oneWay) Write(b []byte) (int, error)      { return o.w.Write(b) }
func (o *oneWay) SetDeadline(time.Time) error      { return nil }
func (o *oneWay) SetWriteDeadline(time.Time) error { return nil }
func (o *oneWay) Close() error                     { return nil }

// realHello is what crypto/tls sends.
func realHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	conn := &oneWay{r: strings.NewReader("")}
	config.InsecureSkipVerify = true
	if err := tls.Client(conn, config).Handshake(); err == nil {
		t.Fatal("handshake without a server succeeded")
	}
	return conn.w.Bytes()
}

func hellos(t testing.TB) map[string][]byte {
	h2 := []string{"h2", "periplus-http/1.1"}
	return map[string][]byte{
		"post-quantum":   realHello(t, &tls.Config{ServerName: name, NextProtos: h2}),
		"classic curves": realHello(t, &tls.Config{ServerName: name, NextProtos: h2, CurvePreferences: []tls.CurveID{tls.X25519}}),
		"TLS 1.2":        realHello(t, &tls.Config{ServerName: name, NextProtos: h2, MaxVersion: tls.VersionTLS12}),
		"GREASE":         grease(realHello(t, &tls.Config{ServerName: name, NextProtos: h2})),
	}
}

// grease appends an unknown extension and puts an unknown record version, as RFC 8701 has it.
func grease(hello []byte) []byte {
	return withExtension(hello, 0x3a3a, []byte{0})
}

func withExtension(hello []byte, kind uint16, data []byte) []byte {
	extension := append([]byte{byte(kind >> 8), byte(kind), byte(len(data) >> 8), byte(len(data))}, data...)
	made := append(slices.Clone(hello), extension...)
	at := recordHeader + handshakeHeader + 2 + 32
	at += 1 + int(made[at])
	at += 2 + int(made[at])<<8 + int(made[at+1])
	at += 1 + int(made[at])
	for _, field := range []int{3, recordHeader + 2, at} {
		length := int(made[field])<<8 + int(made[field+1]) + len(extension)
		made[field], made[field+1] = byte(length>>8), byte(length)
	}
	return made
}

// records splits the hello into TLS records of at most n bytes.
func records(hello []byte, n int) []byte {
	var made []byte
	for part := range slices.Chunk(hello[recordHeader:], n) {
		made = append(made, recordHandshake, 3, 1, byte(len(part)>>8), byte(len(part)))
		made = append(made, part...)
	}
	return made
}

func TestPeek(t *testing.T) {
	for kind, hello := range hellos(t) {
		for shape, wire := range map[string][]byte{"one record": hello, "records of 100": records(hello, 100), "records of 1": records(hello, 1)} {
			for way, reader := range map[string]func(io.Reader) io.Reader{
				"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "data with EOF": iotest.DataErrReader,
			} {
				t.Run(kind+"/"+shape+"/"+way, func(t *testing.T) {
					sent := append(slices.Clone(wire), "early data"...)
					r := reader(bytes.NewReader(sent))
					got, peeked, err := Peek(r)
					if err != nil || got.ServerName != name || !slices.Equal(got.Protocols(), []string{"h2", "periplus-http/1.1"}) {
						t.Fatalf("got %+v %v", got, err)
					}
					replayed, _ := io.ReadAll(Replay(&oneWay{r: r}, peeked))
					if !bytes.Equal(replayed, sent) {
						t.Error("the replay is not what was sent")
					}
				})
			}
		}
	}
}

func TestPeekRefuses(t *testing.T) {
	hello := realHello(t, &tls.Config{ServerName: name})
	long := withExtension(hello, 0x7777, make([]byte, MaxHello-len(hello)))
	change := func(at int, to byte) []byte {
		made := slices.Clone(hello)
		made[at] = to
		return made
	}
	for _, test := range []struct {
		name string
		wire []byte
		want error
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), ErrNotTLS},
		{"one wrong byte is enough", []byte("G"), ErrNotTLS},
		{"SSLv2", []byte{0x80, 0x2e, 1, 0, 2}, ErrNotTLS},
		{"nothing", nil, io.ErrUnexpectedEOF},
		{"cut short", hello[:len(hello)-1], io.ErrUnexpectedEOF},
		{"no name", realHello(t, &tls.Config{}), ErrNoServerName},
		{"longer than 16 KiB", long, ErrTooLong},
		{"says it is longer than 16 KiB", append([]byte{22, 3, 1, 0, 4, 1, 0, 255, 255}, make([]byte, 100)...), ErrTooLong},
		{"tiny records, longer than 16 KiB", records(long[:MaxHello/2], 1), ErrTooLong},
		{"empty record", []byte{22, 3, 1, 0, 0}, ErrMalformed},
		{"record longer than TLS allows", []byte{22, 3, 1, 0x40, 1}, ErrMalformed},
		{"another handshake message", change(recordHeader, 2), ErrMalformed},
		{"alert in between", append(records(hello[:recordHeader+100], 100), 21, 3, 1, 0, 2, 1, 0), ErrMalformed},
		{"session longer than the hello", change(recordHeader+handshakeHeader+34, 255), ErrMalformed},
		{"name twice", withExtension(hello, extensionName, []byte{0, 4, 0, 0, 1, 'x'}), ErrMalformed},
		{"trailing dot", withExtension(realHello(t, &tls.Config{}), extensionName, []byte{0, 5, 0, 0, 2, 'x', '.'}), ErrMalformed},
		{"empty name", withExtension(realHello(t, &tls.Config{}), extensionName, []byte{0, 3, 0, 0, 0}), ErrMalformed},
		{"two names", withExtension(realHello(t, &tls.Config{}), extensionName, []byte{0, 8, 0, 0, 1, 'x', 0, 0, 1, 'y'}), ErrMalformed},
		{"empty protocol", withExtension(hello, extensionALPN, []byte{0, 1, 0}), ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, peeked, err := Peek(bytes.NewReader(test.wire))
			if !errors.Is(err, test.want) {
				t.Errorf("got %+v %v, want %v", got, err, test.want)
			}
			if len(peeked) > MaxHello {
				t.Errorf("read %d bytes", len(peeked))
			}
		})
	}
}

func TestPeekTimeout(t *testing.T) {
	if _, _, err := Peek(iotest.ErrReader(os.ErrDeadlineExceeded)); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

func TestEncryptedHello(t *testing.T) {
	hello := withExtension(realHello(t, &tls.Config{ServerName: name}), extensionECH, []byte{0, 0})
	if got, _, err := Peek(bytes.NewReader(hello)); err != nil || !got.Encrypted {
		t.Errorf("got %+v %v, want it known as encrypted", got, err)
	}
}

// standard reads the hello with crypto/tls.
func standard(wire []byte) (info *tls.ClientHelloInfo) {
	conn := &oneWay{r: bytes.NewReader(wire)}
	_ = tls.Server(conn, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
		info = i
		return nil, errors.New("seen")
	}}).HandshakeContext(context.Background())
	return info
}

// What Peek and crypto/tls both accept, they read alike: a server behind sees the name that was routed by. And what
// crypto/tls accepts within the limit, Peek accepts.
func FuzzPeek(f *testing.F) {
	for _, hello := range hellos(f) {
		f.Add(hello)
		f.Add(records(hello, 64))
		f.Add(hello[:len(hello)/2])
	}
	f.Add(realHello(f, &tls.Config{}))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, peeked, err := Peek(bytes.NewReader(wire))
		if !bytes.HasPrefix(wire, peeked) || len(peeked) > MaxHello {
			t.Fatal("peeked bytes are not what was sent")
		}
		slow, _, slowErr := Peek(iotest.OneByteReader(bytes.NewReader(wire)))
		if slow.ServerName != got.ServerName || (slowErr == nil) != (err == nil) {
			t.Fatalf("byte by byte %q %v, at once %q %v", slow.ServerName, slowErr, got.ServerName, err)
		}
		info := standard(wire)
		if info == nil || errors.Is(err, ErrTooLong) {
			return
		}
		if err != nil && !(errors.Is(err, ErrNoServerName) && info.ServerName == "") {
			t.Fatalf("crypto/tls reads %q, Peek says %v", info.ServerName, err)
		}
		if got.ServerName != info.ServerName || !slices.Equal(got.Protocols(), info.SupportedProtos) {
			t.Fatalf("crypto/tls reads %q %q, Peek %q %q", info.ServerName, info.SupportedProtos, got.ServerName, got.Protocols())
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	hello := realHello(b, &tls.Config{ServerName: name, NextProtos: []string{"h2"}})
	b.Run("peek", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, _, err := Peek(bytes.NewReader(hello)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("crypto-tls", func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if standard(hello) == nil {
				b.Fatal("not read")
			}
		}
	})
}
