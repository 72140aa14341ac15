package jointoken

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
)

func sample() Token {
	return Token{
		Secret: NewSecret(), Cluster: "eu-west", TrustDomain: "eu-west.mesh", Plane: "periplus.global",
		Controllers: []string{"127.0.0.1:7001", "[::1]:7001"}, RootSHA256: Hash("root"), ExpiresUnix: 1_800_000_000,
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample()
	got, err := Parse("\n " + want.Text() + "\n")
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if strings.Contains(got.String(), got.Secret) {
		t.Error("String shows the secret")
	}
}

func TestParseRefuses(t *testing.T) {
	change := func(f func(*Token)) string { token := sample(); f(&token); return token.Text() }
	for name, text := range map[string]string{
		"empty":           "",
		"another file":    "apiVersion: v1",
		"not base64":      Prefix + "%%%",
		"not json":        Prefix + base64.RawURLEncoding.EncodeToString([]byte("{")),
		"tail":            Prefix + base64.RawURLEncoding.EncodeToString([]byte("{} {}")),
		"cut":             sample().Text()[:80],
		"too long":        Prefix + strings.Repeat("A", maxBytes),
		"short secret":    change(func(t *Token) { t.Secret = "AAAA" }),
		"no cluster":      change(func(t *Token) { t.Cluster = "" }),
		"no controllers":  change(func(t *Token) { t.Controllers = nil }),
		"many":            change(func(t *Token) { t.Controllers = make([]string, 100) }),
		"bad address":     change(func(t *Token) { t.Controllers = []string{"nowhere"} }),
		"bad hash":        change(func(t *Token) { t.RootSHA256 = "00" }),
		"no trust domain": change(func(t *Token) { t.TrustDomain = "" }),
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Text())
	f.Add(Prefix + base64.RawURLEncoding.EncodeToString([]byte(`{"controllers":[null,"a:1"],"secret":1}`)))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(token.Text())
		if err != nil || !reflect.DeepEqual(again, token) {
			t.Fatalf("%+v reads back as %+v, %v", token, again, err)
		}
	})
}
