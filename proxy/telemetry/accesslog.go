package telemetry

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/periplus-mesh/periplus/proxy/record"
)

// Format of the access log.
type Format uint8

// The formats. Both have the fields of Istio's default log; JSON has Istio's names.
const (
	Text Format = iota
	JSON
)

const (
	flushEvery = 100 * time.Millisecond
	flushAt    = 64 << 10 // bytes
)

// accessLog has two buffers: one fills while the other is written.
type accessLog struct {
	out     io.Writer
	append  func([]byte, *record.Record) []byte
	limit   int
	dropped prometheus.Counter
	log     *slog.Logger
	full    chan struct{} // capacity 1: there is enough to write

	mu     sync.Mutex
	buffer []byte // guarded by mu
}

func newAccessLog(c Config, dropped prometheus.Counter) *accessLog {
	l := &accessLog{out: c.AccessLog, append: appendText, limit: c.AccessLogBytes, dropped: dropped, log: c.Log, full: make(chan struct{}, 1)}
	if c.Format == JSON {
		l.append = appendJSON
	}
	return l
}

func (l *accessLog) observe(r *record.Record) {
	l.mu.Lock()
	before := len(l.buffer)
	if before < l.limit {
		l.buffer = l.append(l.buffer, r)
	}
	after := len(l.buffer)
	if after > l.limit {
		l.buffer = l.buffer[:before]
	}
	l.mu.Unlock()
	if before >= l.limit || after > l.limit {
		l.dropped.Inc()
	}
	if after >= flushAt {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

func (l *accessLog) run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	var spare []byte
	for {
		select {
		case <-ticker.C:
		case <-l.full:
		case <-ctx.Done():
			l.flush(spare)
			return nil
		}
		spare = l.flush(spare)
	}
}

// flush writes what there is and returns the written buffer for reuse.
func (l *accessLog) flush(spare []byte) []byte {
	l.mu.Lock()
	lines := l.buffer
	l.buffer = spare[:0]
	l.mu.Unlock()
	if len(lines) == 0 {
		return lines
	}
	if _, err := l.out.Write(lines); err != nil {
		l.log.Warn("access log lines lost", "err", err)
	}
	return lines
}

// appendText is Istio's default format (EnvoyTextLogFormat).
func appendText(b []byte, r *record.Record) []byte {
	b = append(b, '[')
	b = r.Start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, `] "`...)
	if r.Method == "" {
		b = append(b, "- - -"...)
	} else {
		b = appendWord(b, r.Method)
		b = append(b, ' ')
		b = appendWord(b, r.Path)
		b = append(b, ' ')
		b = append(b, httpVersion(r)...)
	}
	b = append(b, `" `...)
	b = strconv.AppendInt(b, int64(r.Code), 10)
	b = append(b, ' ')
	b = r.Flags.AppendTo(b)
	b = append(b, ' ')
	b = appendWord(b, r.Details)
	b = append(b, ` - "-" `...)
	b = strconv.AppendInt(b, r.RequestBytes, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.ResponseBytes, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, r.Duration.Milliseconds(), 10)
	b = append(b, ' ')
	b = appendUpstreamTime(b, r)
	b = append(b, ` "-"`...)
	for _, s := range [...]string{r.UserAgent, r.RequestID, r.Authority} {
		b = append(b, ` "`...)
		b = appendSafe(b, s)
		b = append(b, '"')
	}
	b = append(b, ` "`...)
	b = appendAddress(b, r.Host.Address)
	b = append(b, `" `...)
	b = appendWord(b, r.Cluster)
	b = append(b, " - "...)
	b = appendAddress(b, r.LocalAddress)
	b = append(b, ' ')
	b = appendAddress(b, r.Downstream)
	b = append(b, ' ')
	b = appendWord(b, r.ServerName)
	b = append(b, ' ')
	b = appendWord(b, r.Route)
	return append(b, '\n')
}

func httpVersion(r *record.Record) string {
	switch r.Protocol {
	case record.HTTP1:
		return "HTTP/1.1"
	case record.TCP:
		return "-"
	}
	return "HTTP/2"
}

func appendUpstreamTime(b []byte, r *record.Record) []byte {
	if r.Upstream == 0 {
		return append(b, '-')
	}
	return strconv.AppendInt(b, (r.Upstream - r.Request).Milliseconds(), 10)
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return a.AppendTo(b)
}

// appendWord is appendSafe for a field that no quotes hold together: a space in it, which a client may well put into its
// SNI, would move all fields after it. Envoy writes such details with underscores, too.
func appendWord(b []byte, s string) []byte {
	from := len(b)
	b = appendSafe(b, s)
	for i := from; i < len(b); i++ {
		if b[i] == ' ' {
			b[i] = '_'
		}
	}
	return b
}

// appendSafe escapes what could forge a line or drive a terminal; "-" for nothing.
func appendSafe(b []byte, s string) []byte {
	if s == "" {
		return append(b, '-')
	}
	const hex = "0123456789abcdef"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			b = append(b, '\\', 'x', hex[c>>4], hex[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// appendJSON is Istio's default JSON format.
func appendJSON(b []byte, r *record.Record) []byte {
	b = append(b, `{"start_time":"`...)
	b = r.Start.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	b = append(b, '"')
	text := func(name, value string) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = appendQuoted(b, value)
	}
	number := func(name string, value int64) {
		b = append(append(append(b, `,"`...), name...), `":`...)
		b = strconv.AppendInt(b, value, 10)
	}
	address := func(a netip.AddrPort) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	text("method", r.Method)
	text("path", r.Path)
	text("protocol", httpVersion(r))
	number("response_code", int64(r.Code))
	text("response_flags", r.Flags.String())
	text("response_code_details", r.Details)
	number("bytes_received", r.RequestBytes)
	number("bytes_sent", r.ResponseBytes)
	number("duration", r.Duration.Milliseconds())
	if r.Upstream > 0 {
		number("upstream_service_time", (r.Upstream - r.Request).Milliseconds())
	}
	text("user_agent", r.UserAgent)
	text("request_id", r.RequestID)
	text("authority", r.Authority)
	text("upstream_host", address(r.Host.Address))
	text("upstream_cluster", r.Cluster)
	text("downstream_local_address", address(r.LocalAddress))
	text("downstream_remote_address", address(r.Downstream))
	text("requested_server_name", r.ServerName)
	text("route_name", r.Route)
	text("downstream_peer", r.Peer)
	return append(b, "}\n"...)
}

// appendQuoted leaves the rare string with something to escape to encoding/json; "" is null, as Envoy has it.
func appendQuoted(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf || c == 0x7f {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
