package route

import (
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
)

type headers [][2]string

func (h headers) Len() int               { return len(h) }
func (h headers) At(i int) (n, v string) { return h[i][0], h[i][1] }

func prefix(name, value string) *config.Route {
	return &config.Route{Name: name, Match: config.RouteMatch{Path: config.PathMatch{Value: value}}}
}

func TestMatch(t *testing.T) {
	canary := prefix("canary", "/")
	canary.Match.Headers = []config.HeaderMatch{{Name: "x-canary", Value: &config.StringMatch{Value: "b"}}}
	byQuery := prefix("query", "/")
	byQuery.Match.Query = []config.QueryMatch{{Name: "v", Value: &config.StringMatch{Value: "2"}}}
	segment := prefix("segment", "/api")
	segment.Match.Path.Kind = config.PathSeparatedPrefix
	table := Compile(&config.RouteTable{VirtualHosts: []*config.VirtualHost{
		{Domains: []string{"catalog", "catalog:80"}, Routes: []*config.Route{canary, byQuery, segment, prefix("rest", "/")}},
		{Domains: []string{"*.shop"}, Routes: []*config.Route{prefix("shop", "/")}},
		{Domains: []string{"*.eu.shop"}, Routes: []*config.Route{prefix("eu", "/")}},
		{Domains: []string{"pay.*"}, Routes: []*config.Route{prefix("pay", "/")}},
	}})
	for _, c := range []struct {
		authority, path, want string
		headers               headers
	}{
		{"catalog", "/", "rest", nil}, {"CATALOG:80", "/", "rest", nil}, {"catalog:81", "/", "", nil}, {"other", "/", "", nil},
		{"catalog", "/api", "segment", nil}, {"catalog", "/api/x", "segment", nil}, {"catalog", "/apix", "rest", nil},
		{"catalog", "/?v=2", "query", nil}, {"catalog", "/?u=1&v=2", "query", nil}, {"catalog", "/?v=3", "rest", nil},
		{"catalog", "/", "canary", headers{{"X-Canary", "a"}, {"x-canary", "b"}}}, {"catalog", "/", "rest", headers{{"X-Canary", "a"}}},
		{"a.shop", "/", "shop", nil}, {"a.eu.shop", "/", "eu", nil}, {".shop", "/", "", nil}, {"pay.x", "/", "pay", nil},
	} {
		r := Request{Authority: c.authority, Method: "GET", Headers: c.headers}
		r.SetPath(c.path)
		got := ""
		if route := table.Match(&r); route != nil {
			got = route.Name
		}
		if got != c.want {
			t.Errorf("%s%s %v: %q, want %q", c.authority, c.path, c.headers, got, c.want)
		}
	}
}

func TestChooseRewriteHash(t *testing.T) {
	r := compile(&config.RouteTable{}, &config.VirtualHost{}, &config.Route{
		Match: config.RouteMatch{Path: config.PathMatch{Value: "/v1"}},
		Forward: &config.Forward{
			Clusters: []config.WeightedCluster{{Name: "a", Weight: 3}, {Name: "b", Weight: 1}}, TotalWeight: 4, PrefixRewrite: "/v2",
			Hash: []config.HashPolicy{{Kind: config.HashCookie, Name: "s"}},
		},
	})
	n := map[string]int{}
	for i := range uint64(400) {
		n[r.Choose(i).Cluster]++
	}
	if n["a"] != 300 || n["b"] != 100 {
		t.Error(n)
	}
	q := Request{Headers: headers{{"cookie", `x=1; s="u"`}}}
	q.SetPath("/v1/x?y=1")
	if got := r.RewritePath(&q); got != "/v2/x?y=1" {
		t.Error(got)
	}
	same := Request{Headers: headers{{"Cookie", "s=u"}}}
	one, ok, _ := r.Hash(&q)
	if two, _, _ := r.Hash(&same); !ok || one != two {
		t.Error(one, two)
	}
	if _, ok, _ := r.Hash(&Request{Headers: headers{}}); ok {
		t.Error("hashed nothing")
	}
}

func TestRetries(t *testing.T) {
	p := &config.RetryPolicy{On: config.RetryConnectFailure | config.RetryCodes | config.RetryGRPCUnavailable, Codes: []int{429}}
	if !Retries(p, ConnectFailed) || Retries(p, Reset) || Retries(p, NoUpstream) || Retries(nil, ConnectFailed) {
		t.Error("outcomes")
	}
	if !RetriesStatus(p, 429, -1) || RetriesStatus(p, 503, -1) || !RetriesStatus(p, 200, 14) || RetriesStatus(nil, 503, -1) {
		t.Error("statuses")
	}
}

// What a real Envoy does; integration/oracle asks it.
func TestMatchesAsEnvoy(t *testing.T) {
	inverted := &config.HeaderMatch{Name: "x", Value: &config.StringMatch{Value: "v"}, Invert: true}
	for _, c := range []struct {
		headers headers
		want    bool
	}{{nil, false}, {headers{{"x", "w"}}, true}, {headers{{"x", "w"}, {"x", "v"}}, false}, {headers{{"x", "w"}, {"x", "w"}}, true}} {
		if got := matchAny(inverted, &Request{Headers: c.headers}); got != c.want {
			t.Errorf("%v: %v", c.headers, got)
		}
	}
	absent := &config.QueryMatch{Name: "v", Absent: true}
	if matchQuery(absent, "a=1&v") || !matchQuery(absent, "a=v") {
		t.Error("a parameter that must not be there")
	}
}

func TestLocation(t *testing.T) {
	for _, c := range []struct {
		redirect  config.Redirect
		authority string
		want      string
	}{
		{config.Redirect{HTTPS: true}, "a:80", "https://a/p?q=1"},
		{config.Redirect{HTTPS: true}, "a:8080", "https://a:8080/p?q=1"},
		{config.Redirect{Port: 81}, "a:80", "http://a:81/p?q=1"},
		{config.Redirect{Path: "/x"}, "a", "http://a/x?q=1"},
		{config.Redirect{Path: "/x?y"}, "a", "http://a/x?y"},
		{config.Redirect{Path: "/x", StripQuery: true}, "a", "http://a/x"},
	} {
		r := &Route{Route: &config.Route{Redirect: &c.redirect}}
		if got := r.Location(&Request{Scheme: "http", Authority: c.authority, Path: "/p", Query: "q=1"}); got != c.want {
			t.Errorf("%+v: %s, want %s", c.redirect, got, c.want)
		}
	}
}

func TestHashMakesACookie(t *testing.T) {
	life := time.Minute
	r := &Route{Route: &config.Route{Forward: &config.Forward{Hash: []config.HashPolicy{{Kind: config.HashCookie, Name: "s", TTL: &life, Path: "/p"}}}}}
	made, ok, cookie := r.Hash(&Request{Headers: headers{}, Random: 7})
	if !ok || cookie != `s="8000000000000007"; Max-Age=60; Path=/p; HttpOnly` {
		t.Errorf("%v %q", ok, cookie)
	}
	again, _, none := r.Hash(&Request{Headers: headers{{"cookie", `s="8000000000000007"`}}})
	if again != made || none != "" {
		t.Errorf("%x then %x, %q", made, again, none)
	}
}

func TestHashOfSeveralValuesHasNoOrder(t *testing.T) {
	r := &Route{Route: &config.Route{Forward: &config.Forward{Hash: []config.HashPolicy{{Kind: config.HashHeader, Name: "x"}}}}}
	one, _, _ := r.Hash(&Request{Headers: headers{{"x", "a"}, {"x", "b"}}})
	two, _, _ := r.Hash(&Request{Headers: headers{{"X", "b"}, {"x", "a"}}})
	if joined, _, _ := r.Hash(&Request{Headers: headers{{"x", "a,b"}}}); one != two || one == joined {
		t.Errorf("%x %x %x", one, two, joined)
	}
}
