package workload

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func runWorkload(stdin string, args ...string) (string, error) {
	command := process.Usage(Command())
	var out bytes.Buffer
	command.SetIn(strings.NewReader(stdin))
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.Execute()
	return out.String(), err
}

// What the flags say is what a file can say.
func TestWorkloadFormIsAFile(t *testing.T) {
	always := []string{"register", "--etcd", "http://127.0.0.1:1", "--cluster", "dc-1", "--dry-run"}
	form, err := runWorkload("", append(always, "vm-7", "--service", "catalog.shop", "--address", "10.0.0.7", "--port", "http=8080:http:80", "--port", "admin=9000",
		"--zone", "a/b", "--label", "version=v2", "--identity", "spiffe://dc-1.test/ns/shop/sa/catalog", "--exported", "--weight", "3")...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"# /periplus/v1/dc-1/endpoints/shop/catalog/vm-7\n", "exported: true", "port: 80\n", "protocol: tcp", "port: 9000\n", "locality: /a/b", "version: v2",
		"identity: spiffe://dc-1.test/ns/shop/sa/catalog", "http: 8080", "weight: 3",
	} {
		if !strings.Contains(form, want) {
			t.Errorf("%q is not in\n%s", want, form)
		}
	}
	if file, err := runWorkload(form, append(always, "-f", "-")...); err != nil || !strings.HasSuffix(file, form[strings.Index(form, "\n")+1:]) {
		t.Errorf("%v\n%s", err, file)
	}
}

func TestWorkloadRefuses(t *testing.T) {
	always := []string{"--etcd", "http://127.0.0.1:1", "--cluster", "dc-1"}
	good := slices.Clip(append([]string{"register", "vm-7", "--service", "catalog.shop", "--address", "10.0.0.7", "--port", "http=8080"}, always...))
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no etcd":        {[]string{"register", "vm-7", "--cluster", "dc-1"}, cli.ExitUsage, `"etcd" not set`},
		"no name":        {append([]string{"register"}, always...), cli.ExitUsage, "NAME or --file"},
		"service":        {append(good, "--service", "catalog"), cli.ExitUsage, "want NAME.NAMESPACE"},
		"address":        {append(good, "--address", "vm-7.local"), cli.ExitUsage, "--address"},
		"port":           {append(good, "--port", "http=80800"), cli.ExitUsage, "want NAME=PORT"},
		"port twice":     {append(good, "--port", "http=1"), cli.ExitUsage, "twice"},
		"protocol":       {append(good, "--port", "x=1:htp"), cli.ExitData, "none of http"},
		"label":          {append(good, "--label", "x"), cli.ExitUsage, "KEY=VALUE"},
		"ttl":            {append(good, "--ttl", "1s"), cli.ExitUsage, "5s to 24h"},
		"health":         {append(good, "--health-check", "10.0.0.7"), cli.ExitUsage, "--health-check"},
		"file and flags": {append(good, "-f", "x"), cli.ExitUsage, "says it all"},
		"file and one":   {append([]string{"register", "-f", "x", "--weight", "3"}, always...), cli.ExitUsage, "says it all"},
		"once, checked":  {append(good, "--once", "--health-check", "tcp://10.0.0.7:1"), cli.ExitUsage, "--once"},
		"cluster":        {[]string{"list", "--etcd", "http://127.0.0.1:1", "--cluster", "A_B"}, cli.ExitUsage, "RFC 1123"},
		"endpoint":       {[]string{"list", "--etcd", "127.0.0.1:1", "--cluster", "a"}, cli.ExitUsage, "want http://HOST:PORT"},
		"not there":      {[]string{"register", "-f", "/none", "--etcd", "http://127.0.0.1:1", "--cluster", "a"}, cli.ExitData, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := runWorkload("", c.args...)
			if err == nil || cli.Code(err) != c.code || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%d), want %q (%d)", err, cli.Code(err), c.want, c.code)
			}
		})
	}
}

// One answer in between does not change the health, several in a row do.
func TestHealthCheckIsDebounced(t *testing.T) {
	answers := []int{500, 200, 500, 500, 200, 500, 500, 500, 200, 200, 500, 200, 200, 200}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if i := int(asked.Add(1)) - 1; i < len(answers) {
			w.WriteHeader(answers[i])
		}
	}))
	defer server.Close()
	check := healthCheck{target: server.URL, every: 100 * time.Millisecond, times: 3}
	if err := check.validate(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var told []string
	check.run(ctx, slog.New(slog.DiscardHandler), func(healthy bool) {
		told = append(told, fmt.Sprint(asked.Load(), healthy))
		if healthy {
			cancel()
		}
	})
	if got := strings.Join(told, ", "); got != "8 false, 14 true" {
		t.Errorf("told %s", got)
	}
}
