package config

import "testing"

func TestChainChoice(t *testing.T) {
	exact := &FilterChain{Name: "exact", Match: ChainMatch{ServerNames: []string{"a.shop"}}}
	wild := &FilterChain{Name: "wild", Match: ChainMatch{ServerNames: []string{"*.shop"}}}
	plain := &FilterChain{Name: "plain", Match: ChainMatch{Transport: "raw_buffer"}}
	alpn := &FilterChain{Name: "alpn", Match: ChainMatch{Transport: "tls", ALPN: []string{"h2"}}}
	l := &Listener{Chains: []*FilterChain{plain, wild, exact, alpn}, Default: &FilterChain{Name: "default"}}
	for _, test := range []struct {
		sni  string
		tls  bool
		alpn []string
		want string
	}{
		{"a.shop", true, nil, "exact"}, {"b.shop", true, []string{"h2"}, "wild"}, {"x", true, []string{"h2"}, "alpn"},
		{"", false, nil, "plain"}, {"x", true, nil, "default"}, {".shop", true, nil, "default"},
	} {
		if got := l.Chain(1, test.sni, test.tls, test.alpn); got.Name != test.want {
			t.Errorf("%+v: chain %q", test, got.Name)
		}
	}
}
