package forward_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// ask sends a request on a kept connection and returns the response's status.
func ask(t *testing.T, conn interface{ Write([]byte) (int, error) }, r *bufio.Reader) int {
	t.Helper()
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: up\r\n\r\n")
	response, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

// A policy that arrives holds for the next request of a kept connection; if the listener is replaced or removed that
// request still has the last configuration, inline routes included, and ends the connection.
func TestKeptConnectionFollowsItsListener(t *testing.T) {
	p := newProxy(t, []string{upstream(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })})
	conn := dial(t, p.address)
	reader := bufio.NewReader(conn)
	first := p.config.Listeners["outbound_http"]
	with := func(change func(*config.Listener)) *config.Config {
		next, l := *p.config, *first
		l.Chains = []*config.FilterChain{{HTTP: first.Chains[0].HTTP}}
		change(&l)
		next.Listeners = map[string]*config.Listener{l.Name: &l}
		return &next
	}
	denying := *first.Chains[0].HTTP
	denying.RBAC = []*config.RBAC{{Action: config.RBACAllow}}
	direct := *first.Chains[0].HTTP
	direct.Routes = &config.RouteTable{VirtualHosts: []*config.VirtualHost{{Domains: []string{"*"}, Routes: []*config.Route{{
		Match: config.RouteMatch{Path: config.PathMatch{Value: "/"}}, Direct: &config.DirectResponse{Status: 418}}}}}}
	gone := with(func(*config.Listener) {})
	gone.Listeners = nil
	for i, step := range []struct {
		config *config.Config
		want   int
		last   bool // of its connection
	}{
		{with(func(*config.Listener) {}), 200, false},
		{with(func(l *config.Listener) { l.Chains[0].HTTP = &denying }), 403, false},
		{with(func(l *config.Listener) { l.Chains[0].HTTP = &direct }), 418, false},
		{with(func(l *config.Listener) { l.Chains[0] = &config.FilterChain{TCP: &config.TCP{}} }), 418, true}, // another kind: the old one stays
		{gone, 200, true},
		{with(func(*config.Listener) {}), 200, false},
	} {
		p.update(step.config)
		if got := ask(t, conn, reader); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
		if step.last {
			if _, err := reader.Peek(1); err != io.EOF {
				t.Errorf("step %d: the connection stays", i)
			}
			conn = dial(t, p.address)
			reader = bufio.NewReader(conn)
		}
	}
}
