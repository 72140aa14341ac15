package clusteragent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/periplus-mesh/periplus/internal/csrf"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// admin is the plain HTTP side: it answers from the first moment, before there is an agent.
type admin struct {
	config Config
	agent  atomic.Pointer[agent] // nil until registered
}

func newAdmin(c Config) *admin { return &admin{config: c} }

func (a *admin) run(ctx context.Context) error {
	if a.config.AdminListener == nil {
		<-ctx.Done()
		return nil
	}
	server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	err := server.Serve(a.config.AdminListener)
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("admin: %w", err)
}

func (a *admin) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.config.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /ready", a.ready)
	for path, page := range map[string]func(*agent) any{"syncz": syncz, "endpointz": endpointz, "configz": configz} {
		mux.HandleFunc("GET /debug/"+path, a.debug(page))
	}
	return csrf.Loopback(mux)
}

func (a *admin) ready(w http.ResponseWriter, _ *http.Request) {
	reason := "no credential yet: registering with a controller"
	if agent := a.agent.Load(); agent != nil {
		reason = agent.notReady()
	}
	if reason != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, reason)
		return
	}
	fmt.Fprintln(w, "ready")
}

// notReady says what is missing; "": nothing.
func (a *agent) notReady() string {
	closed := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	switch {
	case closed(a.store.Ready()) && !a.serving.Load():
		return "no SVID yet: waiting for the workload API at " + a.config.WorkloadSocket
	case closed(a.store.Ready()):
		return ""
	case !closed(a.sourcesRead):
		return a.unread()
	case !closed(a.follower.Synced()):
		return "other clusters not known: no controller reached, nothing on disk"
	}
	if a.credential.Fresh() && a.reporter.Status().Epoch == 0 {
		return "registered; waiting for a controller to say what it has of the cluster"
	}
	return "state on disk was lost: waiting for the sidecars to come back"
}

// unread says which source has not been read.
func (a *agent) unread() string {
	for _, source := range a.config.Sources {
		select {
		case <-source.Synced():
		default:
			return source.Layer().String() + " not read yet: see /debug/syncz"
		}
	}
	if a.file != nil {
		return "services file not read: " + a.file.Status().Error
	}
	return "sources not read"
}

// debug serves a page as JSON, to this machine only: it shows the cluster's inside.
func (a *admin) debug(page func(*agent) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) {
			http.Error(w, "debug pages are for loopback clients", http.StatusForbidden)
			return
		}
		agent := a.agent.Load()
		if agent == nil {
			http.Error(w, "no credential yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(page(agent)) // the client went away
	}
}

func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // an in-memory or Unix listener
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// syncz is how far everything is, with its age.
func syncz(a *agent) any {
	own, wanted := a.credential.Generation()
	material, _ := a.credential.Get()
	out := map[string]any{
		"cluster": a.credential.Cluster(), "notReady": a.notReady(), "advertise": a.config.Advertise,
		"credential": map[string]any{
			"id": material.ID.String(), "expires": material.Certificate.Leaf.NotAfter, "generation": own, "wantedGeneration": wanted,
			"controllers": a.credential.Controllers(),
		},
		"report": a.reporter.Status(), "follow": a.follower.Status(), "state": a.keeper.Status(),
		"proxies": a.ads.Streams(), "revision": snapshotOf(a.store).Revision(),
	}
	if a.file != nil {
		out["file"] = a.file.Status()
	}
	for _, source := range a.config.Sources {
		if s, ok := source.(interface{ Status() any }); ok {
			out[source.Layer().String()] = s.Status()
		}
	}
	if federator := a.federator.Latest(); federator != nil {
		out["federation"] = federator.Status()
	}
	return out
}

// endpointz is every slice and summary, by service.
func endpointz(a *agent) any {
	out := map[string][]mesh.Object{}
	for key, object := range snapshotOf(a.store).All() {
		if service, _, ok := key.Service(); ok && key.Kind() != mesh.KindService {
			out[service.String()] = append(out[service.String()], object)
		}
	}
	return out
}

// configz is every object, as it travels, with the source of those of the own cluster.
func configz(a *agent) any {
	type entry struct {
		Source string          `json:"source"`
		Object json.RawMessage `json:"object"`
	}
	out := map[mesh.Key]entry{}
	for key, object := range snapshotOf(a.store).All() {
		data, err := protojson.Marshal(meshpb.Encode(object))
		if err != nil {
			continue
		}
		e := entry{Source: "controller", Object: data}
		if source, ok := a.table.SourceOf(key); ok {
			e.Source = source.String()
		}
		out[key] = e
	}
	return out
}
