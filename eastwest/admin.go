package eastwest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/internal/csrf"
)

// serveAdmin serves until ctx ends.
func (r *runner) serveAdmin(ctx context.Context) error {
	if r.config.AdminListener == nil {
		return nil
	}
	server := &http.Server{Handler: r.adminHandler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(r.config.AdminListener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin listener: %w", err)
	}
	return nil
}

func (r *runner) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /ready", r.handleReady)
	metrics := promhttp.HandlerFor(r.config.Metrics, promhttp.HandlerOpts{})
	mux.Handle("GET /stats/prometheus", metrics) // Envoy's path
	mux.Handle("GET /metrics", metrics)          // the customary one
	mux.HandleFunc("GET /clusters", r.handleClusters)
	mux.HandleFunc("GET /config_dump", r.handleConfigDump)
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		r.drainNow()
		w.WriteHeader(http.StatusAccepted)
	})
	return csrf.Protect(mux)
}

// handleReady is 503 before the first table and from the start of a drain on.
func (r *runner) handleReady(w http.ResponseWriter, _ *http.Request) {
	current := r.state.Latest()
	if current != serving {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, current)
}

// handleClusters is in the form of Envoy's admin interface.
func (r *runner) handleClusters(w http.ResponseWriter, _ *http.Request) {
	for _, up := range r.sorted() {
		_, _ = fmt.Fprintf(w, "%s::cx_total::%d\n", up.name, up.opened.Load())
		for _, h := range up.hosts.Hosts() {
			prefix := up.name + "::" + h.Address
			_, _ = fmt.Fprintf(w, "%[1]s::cx_active::%[2]d\n%[1]s::health_flags::%[3]s\n%[1]s::weight::%[4]d\n%[1]s::priority::%[5]d\n",
				prefix, h.Active(), healthFlags(h), h.Weight, h.Priority)
		}
	}
}

func healthFlags(h *balance.Host) string {
	flags := ""
	if h.Ejected() {
		flags += "/failed_outlier_check"
	}
	switch h.Health {
	case balance.Unhealthy:
		flags += "/failed_eds_health"
	case balance.Degraded:
		flags += "/degraded_eds_health"
	}
	return cmp.Or(flags, "healthy")
}

func (r *runner) sorted() []*upstream {
	return slices.SortedFunc(maps.Values(r.gateway.tables.latest.Load().upstreams), func(a, b *upstream) int {
		return cmp.Compare(a.name, b.name)
	})
}

// configDump is the route table and where it comes from.
type configDump struct {
	State    state          `json:"state"`
	Source   string         `json:"source"` // name of the xDS server; empty while there is none
	FromDisk bool           `json:"fromDisk"`
	Since    time.Time      `json:"since"`
	Services []serviceDump  `json:"services"`
	Limits   map[string]int `json:"limits"`
}

type serviceDump struct {
	ServerName string         `json:"serverName"`
	Opened     int64          `json:"connectionsOpened"`
	Endpoints  []endpointDump `json:"endpoints"`
}

type endpointDump struct {
	Address  string `json:"address"`
	Region   string `json:"region,omitempty"`
	Zone     string `json:"zone,omitempty"`
	Priority int    `json:"priority"`
	Weight   uint32 `json:"weight"`
	Health   string `json:"health"`
	Active   int64  `json:"connectionsActive"`
}

func (r *runner) handleConfigDump(w http.ResponseWriter, _ *http.Request) {
	status := r.xds.Latest()
	dump := configDump{
		State: r.state.Latest(), Source: status.Target, FromDisk: status.FromDisk, Since: status.Since, Services: []serviceDump{},
		Limits: map[string]int{"maxConnections": r.config.MaxConnections, "maxPerSource": r.config.MaxPerSource},
	}
	for _, up := range r.sorted() {
		service := serviceDump{ServerName: up.name, Opened: up.opened.Load(), Endpoints: []endpointDump{}}
		for _, h := range up.hosts.Hosts() {
			service.Endpoints = append(service.Endpoints, endpointDump{
				h.Address, h.Region, h.Zone, h.Priority, h.Weight, healthFlags(h), h.Active(),
			})
		}
		dump.Services = append(dump.Services, service)
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(dump)
}
