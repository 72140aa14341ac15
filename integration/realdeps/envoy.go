package realdeps

import (
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Envoy is one Envoy.
type Envoy struct {
	*Process
	Admin string // host:port
}

// StartEnvoy starts Envoy with one worker. bootstrap is YAML or JSON whose admin listener is at admin (host:port, see
// [Address]). program is a copy of the binary to run instead, when its path is its identity; "" is the binary itself.
func StartEnvoy(t testing.TB, name, program, admin string, bootstrap []byte, args ...string) *Envoy {
	t.Helper()
	if program == "" {
		program = Path(t, "envoy")
	}
	config := write(t, filepath.Join(shortDir(t), name+".yaml"), string(bootstrap))
	e := &Envoy{Admin: admin}
	all := append([]string{"-c", config, "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"}, args...)
	e.Process = Run(t, name, program, nil, all...)
	e.Await(30*time.Second, Answers(http.DefaultClient, "http://"+admin+"/ready"))
	return e
}

// Get returns a page of the admin interface.
func (e *Envoy) Get(path string) string {
	e.t.Helper()
	response, err := http.Get("http://" + e.Admin + path)
	if err != nil {
		e.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(body)
}

// Stats returns the counters and gauges whose name matches the regular expression.
func (e *Envoy) Stats(filter string) map[string]int {
	e.t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(e.Get("/stats?filter=" + filter)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.Atoi(value); err == nil {
			out[name] = n
		}
	}
	return out
}
