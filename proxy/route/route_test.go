package route

import (
	"testing"

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
	canary.Match.Headers = []config.HeaderMatch{{Name: "x-canary", Value: &config.StringMatch{Value: "a,b"}}}
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
	one, ok := r.Hash(&q)
	if two, _ := r.Hash(&same); !ok || one != two {
		t.Error(one, two)
	}
	if _, ok := r.Hash(&Request{Headers: headers{}}); ok {
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
