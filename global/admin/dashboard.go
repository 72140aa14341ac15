package admin

import (
	"errors"
	"net/http"
	"net/url"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// contentSecurityPolicy lets the dashboard load from itself only, and nobody frame it.
const contentSecurityPolicy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// readOnly are the procedures that the protos mark NO_SIDE_EFFECTS, by path.
func readOnly() map[string]bool {
	out := make(map[string]bool)
	services := pb.File_periplus_v1_admin_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			method := methods.Get(j)
			if harmless(method) {
				out["/"+string(services.Get(i).FullName())+"/"+string(method.Name())] = true
			}
		}
	}
	return out
}

func harmless(method protoreflect.MethodDescriptor) bool {
	options, ok := method.Options().(*descriptorpb.MethodOptions)
	return ok && options.GetIdempotencyLevel() == descriptorpb.MethodOptions_NO_SIDE_EFFECTS
}

// dashboard serves what changes nothing.
func (s *server) dashboard(services http.Handler) http.Handler {
	mux := http.NewServeMux()
	for path := range readOnly() {
		mux.Handle(path, services)
	}
	mux.HandleFunc("/periplus.v1.", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	if s.Static != nil {
		mux.Handle("/", onlyReads(s.Static))
	}
	return s.guard(http.MaxBytesHandler(mux, MaxBodyBytes))
}

// ready says 200 once this replica's state is complete and there is a leader.
func (s *server) ready(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-s.Store.Ready():
	default:
		http.Error(w, "state is not complete yet", http.StatusServiceUnavailable)
		return
	}
	if s.Replicas.Leader() == "" {
		http.Error(w, "no leader; reads are answered from the last state", http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}

func onlyReads(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "read only", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guard sets the headers and refuses what another site makes a browser send.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		if !sameOrigin(r) {
			connect.NewErrorWriter().Write(w, r, connect.NewError(connect.CodePermissionDenied, errOrigin))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameOrigin: browsers send Origin with every cross-site request that matters (Fetch, section 3.2).
func sameOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

var errOrigin = errors.New("request comes from another site")
