package authz

import (
	"net/netip"
	"testing"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/route"
)

type headers [][2]string

func (h headers) Len() int               { return len(h) }
func (h headers) At(i int) (n, v string) { return h[i][0], h[i][1] }

func exact(s string) *config.StringMatch { return &config.StringMatch{Value: s} }

func rule(action config.RBACAction, permission config.Condition) *config.RBAC {
	return &config.RBAC{Action: action, Policies: []config.RBACPolicy{{
		Name: "p", Permissions: []config.Condition{permission}, Principals: []config.Condition{{Kind: config.Any}},
	}}}
}

func header(name, value string, invert bool) config.Condition {
	return config.Condition{Kind: config.Header, Header: &config.HeaderMatch{Name: name, Value: exact(value), Invert: invert}}
}

func not(c config.Condition) config.Condition {
	return config.Condition{Kind: config.Not, Of: []config.Condition{c}}
}

func TestRequest(t *testing.T) {
	twice := headers{{"X-Role", "user"}, {"x-role", "admin"}}
	peer := &Peer{ID: "spiffe://a/b", TLS: true, Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddrPort("10.0.0.2:80")}
	authenticated := config.Condition{Kind: config.Authenticated}
	for name, c := range map[string]struct {
		rules   []*config.RBAC
		headers headers
		peer    *Peer
		granted bool
	}{
		"no rules":                      {nil, nil, peer, true},
		"deny any value":                {[]*config.RBAC{rule(config.RBACDeny, header("x-role", "admin", false))}, twice, peer, false},
		"deny first value":              {[]*config.RBAC{rule(config.RBACDeny, header("x-role", "user", false))}, twice, peer, false},
		"deny unless, one differs":      {[]*config.RBAC{rule(config.RBACDeny, not(header("x-role", "user", false)))}, twice, peer, false},
		"deny inverted, one differs":    {[]*config.RBAC{rule(config.RBACDeny, header("x-role", "user", true))}, twice, peer, false},
		"allow needs all values":        {[]*config.RBAC{rule(config.RBACAllow, header("x-role", "admin", false))}, twice, peer, false},
		"allow one value":               {[]*config.RBAC{rule(config.RBACAllow, header("x-role", "admin", false))}, headers{{"x-role", "admin"}}, peer, true},
		"allow missing":                 {[]*config.RBAC{rule(config.RBACAllow, header("x-role", "admin", false))}, nil, peer, false},
		"allow unless, one value is it": {[]*config.RBAC{rule(config.RBACAllow, not(header("x-role", "admin", false)))}, twice, peer, false},
		"host in capitals with port":    {[]*config.RBAC{rule(config.RBACDeny, header(":authority", "secret", false))}, nil, peer, false},
		"identity":                      {[]*config.RBAC{rule(config.RBACAllow, authenticated)}, nil, peer, true},
		"no identity":                   {[]*config.RBAC{rule(config.RBACAllow, authenticated)}, nil, &Peer{}, false},
		"deny beats an earlier allow": {[]*config.RBAC{rule(config.RBACAllow, config.Condition{Kind: config.Any}),
			rule(config.RBACDeny, config.Condition{Kind: config.DestinationPort, Port: 80})}, nil, peer, false},
		"shadow": {[]*config.RBAC{{Action: config.RBACDeny, Shadow: true, Policies: rule(config.RBACDeny, config.Condition{Kind: config.Any}).Policies}}, nil, peer, true},
		"source": {[]*config.RBAC{rule(config.RBACDeny, config.Condition{Kind: config.SourceIP, Prefix: netip.MustParsePrefix("10.0.0.0/8")})}, nil, peer, false},
	} {
		permit, _ := Request(c.rules, c.peer, &route.Request{Authority: "SECRET:80", Path: "/", Headers: c.headers})
		if permit.Granted() != c.granted {
			t.Errorf("%s: granted is %v", name, permit.Granted())
		}
	}
}

// A denied host is denied under every name that a server takes for it; an allowed one under its own alone.
func TestHosts(t *testing.T) {
	for _, c := range []struct {
		action          config.RBACAction
		rule, authority string
		granted         bool
	}{
		{config.RBACDeny, "secret", "secret", false}, {config.RBACDeny, "secret", "secret:80", false}, {config.RBACDeny, "secret", "Secret.", false},
		{config.RBACDeny, "secret", "secret.:80", false}, {config.RBACDeny, "secret:80", "secret.:80", false}, {config.RBACDeny, "secret", "other", true},
		{config.RBACDeny, "[::1]", "[::1]:80", false}, {config.RBACDeny, "[::1]", "[::1]", false}, {config.RBACDeny, "[::1]", "[::2]:80", true},
		{config.RBACAllow, "shop", "SHOP", true}, {config.RBACAllow, "shop", "shop:80", false}, {config.RBACAllow, "shop", "shop.", false},
		{config.RBACAllow, "shop", "", false},
	} {
		for _, name := range []string{":authority", "host"} {
			permit, _ := Request([]*config.RBAC{rule(c.action, header(name, c.rule, false))}, &Peer{}, &route.Request{Authority: c.authority, Path: "/", Headers: headers{}})
			if permit.Granted() != c.granted {
				t.Errorf("action %d, %s %q: %q granted is %v", c.action, name, c.rule, c.authority, permit.Granted())
			}
		}
	}
}

func TestZeroPermit(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("the zero Permit passed")
		}
	}()
	Permit{}.Require()
}
