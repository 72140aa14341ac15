package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"sort"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/periplus-mesh/periplus/internal/csrf"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
	"github.com/periplus-mesh/periplus/trust"
)

// Config is what the interface shows and what it can do. All functions must be safe for concurrent use.
type Config struct {
	Listener  net.Listener
	Gatherer  prometheus.Gatherer
	Level     *slog.LevelVar // nil: /logging cannot change it
	Node      *corev3.Node
	Began     time.Time
	Source    trust.Source
	Resources func(xds.Type) []config.Resource // in force, sorted
	View      func() *forward.View
	Bound     func() map[string]netip.AddrPort
	// State is Envoy's name of the state, and whether the proxy is ready.
	State func() (string, bool)
	Plane func() string // the control plane in use, "" for none
	Drain func()        // let no connection live longer than its request
	Quit  func()        // drain and end
	// Failed makes the workload count as unwell, or no longer.
	Failed func(bool)
	Log    *slog.Logger // nil: discards
}

type server struct{ Config }

// Run serves until ctx ends, and then returns nil.
func Run(ctx context.Context, c Config) error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &http.Server{
		Handler: Handler(c), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := s.Serve(c.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin interface: %w", err)
	}
	return nil
}

// Handler returns the interface without its listener.
func Handler(c Config) http.Handler {
	s := &server{c}
	mux := http.NewServeMux()
	for path, show := range map[string]http.HandlerFunc{
		"/ready": s.ready, "/server_info": s.serverInfo, "/config_dump": s.configDump, "/clusters": s.clusters,
		"/listeners": s.listeners, "/certs": s.certs, "/stats": s.stats, "/logging": s.logging,
		"/debug/pprof/": pprof.Index, "/debug/pprof/profile": pprof.Profile, "/debug/pprof/trace": pprof.Trace,
		"/debug/pprof/symbol": pprof.Symbol, "/debug/pprof/cmdline": pprof.Cmdline,
	} {
		mux.HandleFunc("GET "+path, show)
	}
	metrics := promhttp.HandlerFor(c.Gatherer, promhttp.HandlerOpts{})
	mux.Handle("GET /stats/prometheus", metrics)
	mux.Handle("GET /metrics", metrics)
	for path, change := range map[string]func(){
		"/quitquitquit": c.Quit, "/drain_listeners": c.Drain,
		"/healthcheck/fail": func() { c.Failed(true) }, "/healthcheck/ok": func() { c.Failed(false) },
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, _ *http.Request) {
			change()
			fmt.Fprintln(w, "OK")
		})
	}
	mux.HandleFunc("POST /logging", s.setLogging)
	mux.HandleFunc("GET /{$}", s.index)
	mux.HandleFunc("GET /help", s.index)
	return csrf.Protect(mux)
}

func (s *server) index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `admin commands are:
  /certs: certificates of the proxy
  /clusters: upstream clusters and their hosts (?format=json)
  /config_dump: resources in force (?resource and ?include_eds as in Envoy)
  /debug/pprof/: profiles
  /drain_listeners (POST): let no connection live longer than its request
  /healthcheck/fail (POST), /healthcheck/ok (POST): make the workload count as unwell, or no longer
  /listeners: bound listeners (?format=json)
  /logging: level of the log; POST ?level=debug changes it
  /quitquitquit (POST): drain and end
  /ready: LIVE and 200, or 503
  /server_info: node, state, uptime
  /stats, /stats/prometheus: metrics
`)
}

func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	state, ready := s.State()
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintln(w, state)
}

func (s *server) logging(w http.ResponseWriter, _ *http.Request) {
	if s.Level == nil {
		fmt.Fprintln(w, "active loggers:\n  periplus: fixed")
		return
	}
	fmt.Fprintf(w, "active loggers:\n  periplus: %s\n", strings.ToLower(s.Level.Level().String()))
}

func (s *server) setLogging(w http.ResponseWriter, r *http.Request) {
	var level slog.Level
	if s.Level == nil || level.UnmarshalText([]byte(strings.Replace(r.URL.Query().Get("level"), "warning", "warn", 1))) != nil {
		http.Error(w, "usage: /logging?level=<debug|info|warning|error>; the log must have a level that can be changed", http.StatusBadRequest)
		return
	}
	s.Level.Set(level)
	s.logging(w, r)
}

// stats is every counter and gauge as "name{labels}: value", sorted.
func (s *server) stats(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Get("format") == "prometheus" {
		promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, r)
		return
	}
	families, err := s.Gatherer.Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	var lines []string
	filter := r.URL.Query().Get("filter")
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			if line := statLine(family.GetName(), metric); strings.Contains(line, filter) {
				lines = append(lines, line)
			}
		}
	}
	sort.Strings(lines)
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	for _, line := range lines {
		fmt.Fprintln(w, line)
	}
}
