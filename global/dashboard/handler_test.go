package dashboard

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandlerServesThePageUnderAStrictPolicy(t *testing.T) {
	for path, contains := range map[string]string{"/": "<title>Periplus</title>", "/app.js": "Overview", "/style.css": "color-scheme", "/icon.svg": "<svg"} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), contains) {
			t.Errorf("%s: status %d, does not contain %q", path, w.Code, contains)
		}
		if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, "script-src 'self'") || strings.Contains(got, "unsafe") {
			t.Errorf("%s: policy %q", path, got)
		}
	}
}

// The policy forbids inline scripts and styles, and the page must do without what could smuggle markup in.
func TestPageHasNothingInline(t *testing.T) {
	for name, banned := range map[string][]string{
		"static/index.html": {"onclick", "style=", "<style", "http://", "https://"},
		"static/app.js":     {"innerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"},
	} {
		data, err := static.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range banned {
			if strings.Contains(string(data), b) {
				t.Errorf("%s contains %q", name, b)
			}
		}
	}
}
