package oracle

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// upstreams answer at every address that a case names. What one answers, the request says itself:
//
//	x-script: 503,reset,200   the answers to its first, second, third attempt; a list of one goes for all
//	x-script: 0.1:503         the answer of one host; others answer 200
//	x-reply:  name: value|..  further response headers
//
// An answer is a status, or reset, close, hang, garbage, slow, raw (x-raw in base64), half.
type upstreams struct {
	server *http.Server

	mu      sync.Mutex
	seen    map[string][]seen // guarded by mu; by x-oracle
	sockets map[string]bool
	broken  map[string]bool // guarded by mu; hosts that answer 500 to /health
}

// seen is one attempt as an upstream saw it.
type seen struct {
	host    string // "0.1": priority and number
	request *http.Request
	body    string
}

func startUpstreams(t *testing.T, cases []testCase) *upstreams {
	t.Helper()
	u := &upstreams{seen: map[string][]seen{}, sockets: map[string]bool{}, broken: map[string]bool{}}
	u.server = &http.Server{Handler: u, Protocols: new(http.Protocols), ErrorLog: nil, IdleTimeout: time.Minute}
	u.server.Protocols.SetHTTP1(true)
	u.server.Protocols.SetUnencryptedHTTP2(true)
	for _, c := range cases {
		for _, cl := range c.clusters {
			for _, group := range cl.assignment(t, "x").Endpoints {
				for _, e := range group.LbEndpoints {
					u.listen(t, e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress())
				}
			}
		}
	}
	t.Cleanup(func() { u.server.Close() })
	return u
}

func (u *upstreams) listen(t *testing.T, host string) {
	if u.sockets[host] || strings.HasPrefix(host, "127.45.9") {
		return
	}
	u.sockets[host] = true
	l := listen(t, net.JoinHostPort(host, strconv.Itoa(upstreamPort)))
	go u.server.Serve(l)
}

// hostOf turns 127.45.10.3 into 0.3.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	parts := strings.Split(host, ".")
	priority, _ := strconv.Atoi(parts[2])
	return fmt.Sprintf("%d.%s", priority%10, parts[3])
}

func (u *upstreams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := hostOf(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	w.Header().Set("x-backend", host)
	w.Header()["Date"] = nil
	if r.URL.Path == "/health" {
		u.health(w, r, host)
		return
	}
	var body []byte
	if !strings.Contains(r.Header.Get("X-Script"), "early") {
		body, _ = io.ReadAll(r.Body)
	}
	id := r.Header.Get("X-Oracle")
	u.mu.Lock()
	u.seen[id] = append(u.seen[id], seen{host, r, string(body)})
	attempt := len(u.seen[id])
	u.mu.Unlock()
	for field := range strings.SplitSeq(r.Header.Get("X-Reply"), "|") {
		if name, value, ok := strings.Cut(field, ":"); ok {
			w.Header().Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	reply(w, r, host, script(r.Header.Get("X-Script"), host, attempt))
}

func (u *upstreams) health(w http.ResponseWriter, r *http.Request, host string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.broken[r.Host+host] {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// setHealth of a host towards the health checks with the given authority.
func (u *upstreams) setHealth(authority, host string, healthy bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.broken[authority+host] = !healthy
}

func script(text, host string, attempt int) string {
	if text == "" {
		return "200"
	}
	steps := strings.Split(text, ",")
	if name, answer, of := strings.Cut(steps[0], ":"); of {
		for _, step := range steps {
			if name, answer, _ = strings.Cut(step, ":"); name == host {
				return answer
			}
		}
		return "200"
	}
	return steps[min(attempt, len(steps))-1]
}

func reply(w http.ResponseWriter, r *http.Request, host, step string) {
	if status, err := strconv.Atoi(step); err == nil {
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			io.WriteString(w, "from "+host)
		}
		return
	}
	if delay, err := time.ParseDuration(step); err == nil {
		time.Sleep(delay)
		io.WriteString(w, "late")
		return
	}
	switch step {
	case "early":
		w.WriteHeader(http.StatusForbidden)
	case "hang":
		<-r.Context().Done()
	case "trailers":
		w.Header().Set("Trailer", "X-End")
		io.WriteString(w, "body")
		w.Header().Set("X-End", "yes")
	case "hints":
		w.Header().Set("Link", "</a>")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	default:
		raw(w, r, step)
	}
}

// raw does what no HTTP server should.
func raw(w http.ResponseWriter, r *http.Request, step string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	switch step {
	case "reset":
		conn.(*net.TCPConn).SetLinger(0)
	case "close":
	case "garbage":
		io.WriteString(conn, "this is not HTTP\r\n\r\n")
	case "half":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	case "stall":
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		io.Copy(io.Discard, conn)
	case "echo":
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		io.CopyN(conn, conn, 4)
	case "raw":
		data, _ := base64.StdEncoding.DecodeString(r.Header.Get("X-Raw"))
		conn.Write(data)
		conn.(*net.TCPConn).CloseWrite()
	}
}

// attempts of a request, in order.
func (u *upstreams) attempts(id string) []seen {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.seen[id])
}
