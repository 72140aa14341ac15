package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/periplus-mesh/periplus/internal/memnet"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/proxy/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestThresholds(t *testing.T) {
	fail, pass, wrong := errors.New("refused"), error(nil), fmt.Errorf("%w 500", errStatus)
	for name, test := range map[string]struct {
		results []error
		want    []bool // failing after each
	}{
		"first pass counts at once":        {[]error{pass}, []bool{false}},
		"first failure counts at once":     {[]error{fail, pass, pass}, []bool{true, true, false}},
		"failures must be in a row":        {[]error{pass, fail, fail, pass, fail, fail, fail}, []bool{false, false, false, false, false, false, true}},
		"a wrong status counts at once":    {[]error{pass, wrong}, []bool{false, true}},
		"passes must be in a row, as well": {[]error{fail, pass, fail, pass, pass}, []bool{true, true, true, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			h := &config.HealthCheck{UnhealthyThreshold: 3, HealthyThreshold: 2}
			s := state{failing: true, first: true}
			for i, err := range test.results {
				if s.next(h, err); s.failing != test.want[i] {
					t.Fatalf("after %d results failing is %v", i+1, s.failing)
				}
			}
		})
	}
}

func configOf(check *config.HealthCheck, endpoint netip.AddrPort) *config.Config {
	return &config.Config{Clusters: map[string]*config.Cluster{"c": {Name: "c",
		Settings:  &config.Settings{Name: "c", HealthChecks: []*config.HealthCheck{check}},
		Endpoints: &config.Endpoints{Localities: []config.Locality{{Endpoints: []config.Endpoint{{Address: endpoint}}}}}}}}
}

func TestFollowsAnEndpointThroughConfigurations(t *testing.T) {
	var status atomic.Int64
	status.Store(200)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Host != "c" {
			w.WriteHeader(404)
			return
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer app.Close()
	endpoint := netip.MustParseAddrPort(app.Listener.Addr().String())
	check := func() *config.HealthCheck {
		return &config.HealthCheck{Timeout: time.Second, Interval: 5 * time.Millisecond, UnhealthyThreshold: 2, HealthyThreshold: 1,
			HTTP: &config.HTTPHealthCheck{Path: "/healthz", Method: "GET"}}
	}
	clusters, reports := watch.New(configOf(check(), endpoint)), make(chan bool, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Clusters: clusters,
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", address)
			},
			Report: func(_ string, e netip.AddrPort, failing bool) {
				if e == endpoint {
					reports <- failing
				}
			}})
	}()
	until := func(want bool) {
		t.Helper()
		for timeout := time.After(10 * time.Second); ; {
			select {
			case failing := <-reports:
				if failing == want {
					return
				}
			case <-timeout:
				t.Fatalf("never reported %v", want)
			}
		}
	}
	until(true) // before the first check
	until(false)
	status.Store(503)
	until(true)
	status.Store(200)
	until(false)
	for len(reports) > 0 {
		<-reports
	}
	clusters.Set(configOf(check(), endpoint)) // new settings: the state stays
	for range 5 {
		if <-reports {
			t.Fatal("a new configuration made a healthy endpoint fail")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestTCPExpects(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		buffer := make([]byte, 4)
		_, _ = server.Read(buffer)
		_, _ = server.Write([]byte("xPO"))
		_, _ = server.Write([]byte("NGy"))
	}()
	h := &config.HealthCheck{Send: []byte("PING"), Receive: [][]byte{[]byte("PONG"), []byte("y")}}
	if err := askTCP(client, h); err != nil {
		t.Fatal(err)
	}
}

// An endpoint that says nothing holds up neither the end nor the next configuration, however long its checks may take.
func TestSilentEndpointHoldsUpNothing(t *testing.T) {
	for name, check := range map[string]*config.HealthCheck{
		"http": {HTTP: &config.HTTPHealthCheck{Path: "/", Method: "GET"}}, "http2": {HTTP: &config.HTTPHealthCheck{Path: "/", Method: "GET", HTTP2: true}},
		"grpc": {GRPC: true}, "tcp": {Receive: [][]byte{[]byte("hello")}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				check.Timeout, check.Interval, check.UnhealthyThreshold, check.HealthyThreshold = time.Hour, time.Second, 1, 1
				endpoint := netip.MustParseAddrPort("10.0.0.1:80")
				network := new(memnet.Network)
				silent, err := network.Listen(endpoint.String())
				if err != nil {
					t.Fatal(err)
				}
				defer silent.Close()
				clusters, done := watch.New(configOf(check, endpoint)), make(chan error, 1)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					done <- Run(ctx, Config{Clusters: clusters, Report: func(string, netip.AddrPort, bool) {},
						Dial: func(ctx context.Context, _, address string) (net.Conn, error) { return network.Dial(ctx, address) }})
				}()
				time.Sleep(10 * time.Second)
				begin := time.Now()
				cancel()
				if err := <-done; err != nil || time.Since(begin) > time.Second {
					t.Errorf("ended after %v: %v", time.Since(begin), err)
				}
			})
		})
	}
}

func TestEndlessAnswerIsCutOff(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		_, _ = server.Read(make([]byte, 4096))
		_, _ = server.Write([]byte("HTTP/1.1 200 OK\r\n"))
		for range 2 * maxReceive / 1024 {
			if _, err := server.Write(append([]byte("X-A: "), append(bytes.Repeat([]byte("a"), 1017), "\r\n"...)...)); err != nil {
				return
			}
		}
		_, _ = server.Write([]byte("\r\n"))
	}()
	if err := askHTTP(t.Context(), client, &config.HTTPHealthCheck{Path: "/", Method: "GET"}, "c"); err == nil {
		t.Error("an endpoint may send as much as it likes")
	}
}
