package oracle

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/periplus-mesh/periplus/internal/balance"
)

// outcome is what a case shows of one side.
type outcome struct {
	lines  []string
	shares []shares
}

// shares are parts of the requests, by what got them; tolerance in absolute parts.
type shares struct {
	what      string
	got, want map[string]float64 // want may be nil
	tolerance float64
}

// probe runs a case against one side.
type probe struct {
	t         *testing.T
	test      *testCase
	side      *side
	upstreams *upstreams
	link      *link
	requests  int
	outcome   outcome
}

// note adds a line to the outcome.
func (p *probe) note(format string, args ...any) {
	p.outcome.lines = append(p.outcome.lines, fmt.Sprintf(format, args...))
}

func (p *probe) listener() string {
	if p.test.listener == "" {
		return "main"
	}
	return p.test.listener
}

func (p *probe) fill(r *request) {
	if r.method == "" {
		r.method = "GET"
	}
	if r.path == "" {
		r.path = "/"
	}
	if r.host == "" {
		r.host = p.test.name + ".test"
	}
}

// send makes one request, over a kept connection where it can.
func (p *probe) send(r request) answer {
	p.t.Helper()
	p.fill(&r)
	p.requests++
	id := fmt.Sprintf("%s.%s.%d", p.test.name, p.side.name, p.requests)
	at := p.side.at(p.listener())
	if r.h2 {
		a := overHTTP2(at, &r, id)
		a.id = id
		return a
	}
	if p.link != nil && r.from != "" {
		p.hangUp()
	}
	if p.link == nil {
		var err error
		if p.link, err = dial(at, r.from); err != nil {
			p.t.Fatal(err)
		}
	}
	a := p.link.roundTrip(r.bytes(id), r.method, r.then)
	a.id = id
	if a.closed || a.err != "" || r.raw != "" {
		p.hangUp()
	}
	return a
}

func (p *probe) hangUp() {
	if p.link != nil {
		p.link.conn.Close()
		p.link = nil
	}
}

// local tells an answer that the proxy gave itself.
func (a *answer) local() bool { return a.status != 0 && a.headers.Get("X-Backend") == "" }

// do makes a request and notes what users see of it: status, local body, flags, details, how often it was tried.
func (p *probe) do(r request) answer {
	p.t.Helper()
	a := p.send(r)
	p.fill(&r)
	what := r.method + " " + r.path
	if r.raw != "" {
		what, _, _ = strings.Cut(r.raw, "\n")
		what = fmt.Sprintf("%.40q", what)
	}
	text := fmt.Sprintf("%s: %d", what, a.status)
	if len(a.interim) > 0 {
		text += fmt.Sprint(" after ", a.interim)
	}
	if a.err != "" {
		text += " (" + a.err + ")"
	}
	if a.local() && a.body != "" {
		text += fmt.Sprintf(" %q", reason(a.body))
	}
	if r.raw == "" {
		line, _ := p.side.logs.of(a.id)
		text += fmt.Sprintf(" flags=%s details=%s", dash(sorted(line.Flags)), dash(reason(line.Details)))
	}
	p.note("%s tries=%d", text, len(p.upstreams.attempts(a.id)))
	return a
}

// sorted flags: their order says nothing.
func sorted(flags string) string {
	list := strings.Split(flags, ",")
	slices.Sort(list)
	return strings.Join(list, ",")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// reason cuts off what only the transport's implementation can say.
func reason(text string) string {
	text = strings.ReplaceAll(text, " ", "_")
	for _, cut := range []string{",_transport_failure_reason", "|delayed_connect_error", "|remote_address:"} {
		if i := strings.Index(text, cut); i >= 0 {
			text = text[:i]
			if strings.Contains(cut, "|") {
				text += "}"
			}
		}
	}
	return text
}

// saw notes the head of the last attempt as the upstream saw it; names are those headers that are shown.
func (p *probe) saw(a answer, names ...string) {
	p.t.Helper()
	attempts := p.upstreams.attempts(a.id)
	if len(attempts) == 0 {
		p.note("  upstream saw nothing")
		return
	}
	last := attempts[len(attempts)-1]
	r := last.request
	p.note("  upstream saw %s %s host=%s body=%q", r.Method, r.RequestURI, r.Host, last.body)
	for _, name := range names {
		p.note("  upstream saw %s: %q", name, p.anonymous(r.Header.Values(name)))
	}
}

// sawAll notes all headers that the upstream saw, but for those whose values are random or the test's own.
func (p *probe) sawAll(a answer) {
	attempts := p.upstreams.attempts(a.id)
	if len(attempts) == 0 {
		return
	}
	headers := attempts[len(attempts)-1].request.Header
	for _, name := range slices.Sorted(maps.Keys(headers)) { // but for what case timeout-expected-header has
		if name != "X-Oracle" && name != "X-Script" && name != "X-Reply" && name != "X-Envoy-Expected-Rq-Timeout-Ms" {
			p.note("  upstream saw %s: %q", name, p.anonymous(headers[name]))
		}
	}
}

func (p *probe) anonymous(values []string) []string {
	var out []string
	for _, v := range values {
		v = strings.ReplaceAll(v, "."+p.side.name+".", ".SIDE.")
		out = append(out, strings.ReplaceAll(v, p.side.address, "SIDE"))
	}
	return out
}

// got notes headers of the response.
func (p *probe) got(a answer, names ...string) {
	for _, name := range names {
		p.note("  got %s: %q", name, p.anonymous(a.headers.Values(name)))
	}
}

// gotAll notes every header of the response.
//
// Envoy calls itself by server and dates what has no date; case headers-of-envoy has that.
func (p *probe) gotAll(a answer) {
	for _, name := range slices.Sorted(maps.Keys(a.headers)) {
		if name != "Date" && name != "X-Envoy-Upstream-Service-Time" && (name != "Server" || a.headers.Get(name) != "envoy") {
			p.note("  got %s: %q", name, p.anonymous(a.headers[name]))
		}
	}
}

// spread makes n requests and returns what part each host got; an error is counted by its status.
func (p *probe) spread(n int, r request) map[string]float64 {
	p.t.Helper()
	counts := map[string]float64{}
	for range n {
		a := p.send(r)
		counts[a.who()] += 1 / float64(n)
	}
	return counts
}

func (a *answer) who() string {
	switch {
	case a.headers.Get("X-Backend") != "" && a.status == 200:
		return a.headers.Get("X-Backend")
	case a.err != "":
		return a.err
	}
	return fmt.Sprint(a.status)
}

// share adds parts that must agree within the tolerance.
func (p *probe) share(what string, got, want map[string]float64, tolerance float64) {
	p.outcome.shares = append(p.outcome.shares, shares{what, got, want, tolerance})
}

// percents are header values whose hashes have the remainders 0 to 99: what a hash policy picks priorities by.
var percents = sync.OnceValue(func() []string {
	out := make([]string, 100)
	for i, found := 0, 0; found < 100; i++ {
		value := fmt.Sprintf("v%d", i)
		if at := balance.HashString(value) % 100; out[at] == "" {
			out[at], found = value, found+1
		}
	}
	return out
})

func (p *probe) finish() outcome {
	p.hangUp()
	return p.outcome
}

// TestMain runs more cases at a time than there are processors: most of them wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func TestSidecarDoesAsEnvoy(t *testing.T) {
	cases := allCases()
	u, sides := start(t, cases)
	var mu sync.Mutex
	var table []string
	t.Run("cases", func(t *testing.T) {
		for i := range cases {
			c := &cases[i]
			if c.run == nil {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				results := make([]outcome, len(sides))
				var running sync.WaitGroup
				for i, s := range sides {
					running.Go(func() {
						p := &probe{t: t, test: c, side: s, upstreams: u}
						c.run(p)
						results[i] = p.finish()
					})
				}
				running.Wait()
				verdict := compare(t, c.name, results[0], results[1])
				mu.Lock()
				defer mu.Unlock()
				table = append(table, fmt.Sprintf("%-34s %s", c.name, verdict))
			})
		}
	})
	slices.Sort(table)
	t.Logf("%d cases\n%s", len(table), strings.Join(table, "\n"))
	if len(table) < 60 {
		t.Errorf("only %d cases", len(table))
	}
}

// compare returns what the table says of the case.
func compare(t *testing.T, name string, envoy, ours outcome) string {
	t.Helper()
	if *printing {
		t.Logf("envoy:\n%s", strings.Join(envoy.lines, "\n"))
	}
	difference := diff(envoy.lines, ours.lines)
	reason, accepted := accepted[name]
	if accepted && *update {
		writeAccepted(t, name, difference)
	}
	switch {
	case difference == "" && accepted:
		t.Errorf("differs no longer: remove it from accepted and from docs/envoy-parity.md")
	case difference != "" && !accepted:
		t.Errorf("differs (-envoy +go):\n%s", difference)
	case accepted && difference != readAccepted(t, name):
		t.Errorf("differs otherwise than accepted (-envoy +go):\n%s\nwant\n%s", difference, readAccepted(t, name))
	}
	compareShares(t, envoy.shares, ours.shares)
	if accepted {
		return "differs as accepted: " + reason
	}
	return "same"
}

// diff lists lines that are not in the same place, by a longest common subsequence.
func diff(a, b []string) string {
	length := make([][]int, len(a)+1)
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if length[i][j] = max(length[i+1][j], length[i][j+1]); a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			}
		}
	}
	var out []string
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && length[i+1][j] >= length[i][j+1]:
			out = append(out, "-"+a[i])
			i++
		default:
			out = append(out, "+"+b[j])
			j++
		}
	}
	return strings.Join(out, "\n")
}

func compareShares(t *testing.T, envoy, ours []shares) {
	t.Helper()
	for i := range envoy {
		e, o := envoy[i], ours[i]
		sides := map[string]map[string]float64{"envoy": e.got, "go": o.got}
		if e.want != nil {
			sides["formula"] = e.want
		}
		keys := map[string]bool{}
		for _, parts := range sides {
			for key := range parts {
				keys[key] = true
			}
		}
		for key := range keys {
			if off(sides["envoy"][key], sides["go"][key], e.tolerance) || e.want != nil && off(e.want[key], sides["envoy"][key], e.tolerance) {
				t.Errorf("%s: %s gets envoy %.3f, go %.3f, formula %.3f (tolerance %.3f)", e.what, key, e.got[key], o.got[key], e.want[key], e.tolerance)
			}
		}
	}
}

func off(a, b, tolerance float64) bool { return math.Abs(a-b) > tolerance+1e-9 }
