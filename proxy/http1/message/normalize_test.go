package message

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a": "/a", "/a/b?c//d%2f": "/a/b?c//d%2f", "//admin": "/admin", "/a//b": "/a/b", "/./a": "/a", "/a/.": "/a/",
		"/a/..": "/", "/a/../b": "/b", "/../../b": "/b", "/a/b/../../c/": "/c/", "/%61dmin": "/admin", "/%2e%2e/x": "/x",
		"/a/%2E%2e/b": "/b", "/%7e": "/~", "/a%3ab": "/a%3Ab", "/%2561": "/%2561", "/a/...": "/a/...", "/..a": "/..a", "/a?": "/a?",
	} {
		if got, _, ok := Normalize(nil, in); !ok || got != want {
			t.Errorf("%q: %q %v, want %q", in, got, ok, want)
		}
	}
	for _, in := range []string{"", "a", "/%2f", "/%2F", "/%5c", "/%00", "/%", "/%1", "/%zz", "/#", "/a?b#c", "/\\", "/\x01"} {
		if got, _, ok := Normalize(nil, in); ok {
			t.Errorf("%q accepted as %q", in, got)
		}
	}
}

func TestNormalizeIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := "/" + rapid.StringOf(rapid.RuneFrom([]rune("/.%2eEfF5cCaA~:?"))).Draw(t, "path")
		once, _, ok := Normalize(nil, in)
		if !ok {
			return
		}
		twice, _, ok := Normalize(nil, once)
		if !ok || once != twice {
			t.Fatalf("%q -> %q -> %q %v", in, once, twice, ok)
		}
		if path, _, _ := strings.Cut(once, "?"); strings.Contains(path, "//") || strings.Contains(path, "/../") || strings.Contains(path, "/./") {
			t.Fatalf("%q is not normal", once)
		}
	})
}
