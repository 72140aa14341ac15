package kube

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/periplus-mesh/periplus/cluster-agent/kube/convert"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

func TestClassify(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	for want, errs := range map[reason][]error{
		fine:        {nil},
		expired:     {apierrors.NewResourceExpired("old"), apierrors.NewGone("old")},
		forbidden:   {apierrors.NewForbidden(nodes, "", errors.New("no")), apierrors.NewUnauthorized("who")},
		absent:      {apierrors.NewNotFound(nodes, "")},
		unreachable: {&url.Error{Op: "Get", URL: "https://api", Err: syscall.ECONNREFUSED}, apierrors.NewServiceUnavailable("starting"), apierrors.NewTooManyRequests("later", 1)},
		other:       {apierrors.NewInternalError(errors.New("broken"))},
	} {
		for _, err := range errs {
			if got := classify(err); got != want {
				t.Errorf("%v is %q, want %q", err, got, want)
			}
		}
	}
}

// server is a small API server of Nodes: two pages, a watch, and failures on demand. It cannot list by a watch.
type server struct {
	mu      sync.Mutex
	pages   [][]string
	failAt  int // the page that cannot be read; 0: none
	down    bool
	absent  bool // something else answers in its place
	stream  *watch.FakeWatcher
	expired bool // the next watch says so
	lists   int
}

func (s *server) list(_ context.Context, o metav1.ListOptions) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	page := 1
	if o.Continue != "" {
		page = 2
	}
	switch {
	case s.down:
		return nil, syscall.ECONNREFUSED
	case s.absent:
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, "")
	case page == s.failAt:
		return nil, apierrors.NewInternalError(errors.New("etcd lost its leader"))
	}
	s.lists++
	out := &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}}
	if page < len(s.pages) {
		out.Continue = "more"
	}
	for _, name := range s.pages[page-1] {
		out.Items = append(out.Items, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return out, nil
}

func (s *server) watch(_ context.Context, o metav1.ListOptions) (watch.Interface, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		return nil, syscall.ECONNREFUSED
	case o.SendInitialEvents != nil:
		return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "watch", schema.GroupResource{}, "", "not supported", 0, false)
	case s.expired:
		s.expired = false
		return nil, apierrors.NewResourceExpired("too old")
	}
	s.stream = watch.NewFake()
	return s.stream, nil
}

func (s *server) set(change func(*server)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// Failures of every kind leave what is known; a complete list replaces it.
func TestFailuresChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{pages: [][]string{{"a"}, {"b"}}, failAt: 2}
		m := newMetrics(prometheus.NewRegistry())
		e := newEngine(m)
		f := &follower{kind: kinds()[2], lister: s, engine: e, log: slog.New(slog.DiscardHandler), metrics: m}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); f.run(ctx) }()
		nodes := func(want int, when string) {
			t.Helper()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if got := len(e.state.Names(&convert.Node{})); got != want {
				t.Errorf("%s: %d nodes, want %d", when, got, want)
			}
		}
		nodes(0, "the second page cannot be read")
		if e.isListed("nodes") {
			t.Error("half a list counts as one")
		}
		s.set(func(s *server) { s.failAt = 0 })
		nodes(2, "listed")
		s.set(func(s *server) {
			s.stream.Add(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "c", ResourceVersion: "8"}})
		})
		nodes(3, "watched")
		s.set(func(s *server) { s.down = true; s.stream.Stop() })
		nodes(3, "API server gone")
		if got := value(t, m.watching.WithLabelValues("nodes")); got != 0 {
			t.Error("it counts as watched while the API server is gone")
		}
		s.set(func(s *server) { s.down, s.expired, s.failAt = false, true, 2 })
		nodes(3, "watch expired, and the list fails in the middle")
		s.set(func(s *server) { s.failAt, s.pages = 0, [][]string{{"b"}, {"c"}} })
		nodes(2, "listed anew")
		if got := value(t, m.failures.WithLabelValues("nodes", "expired")); got == 0 {
			t.Error("no expired watch was counted")
		}
		s.set(func(s *server) { s.absent, s.expired = true, true; s.stream.Stop() })
		nodes(2, "a load balancer that has lost its API servers knows no nodes")
		s.set(func(s *server) { s.absent, s.pages = false, [][]string{{"b"}, {"c", "d"}} })
		nodes(3, "found again")
		stop()
		<-ended
	})
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetGauge().GetValue() + out.GetCounter().GetValue()
}

// An API server that has just started may not find ServiceExports. An agent that exported something before it was
// restarted itself gives it a minute; one that did not has nothing to lose.
func TestMissingDefinitionWithdrawsNothingAtOnce(t *testing.T) {
	held := []mesh.Object{&mesh.Service{Exported: false}, &mesh.EndpointSlice{}}
	began := time.Unix(1_000, 0)
	for _, row := range []struct {
		held  []mesh.Object
		after time.Duration
		want  bool
	}{
		{held, 0, true},
		{append(held, &mesh.Service{Exported: true}), 0, false},
		{append(held, &mesh.Service{Exported: true}), 59 * time.Second, false},
		{append(held, &mesh.Service{Exported: true}), time.Minute, true},
	} {
		e := newEngine(newMetrics(prometheus.NewRegistry()))
		x := &exporter{engine: e, patience: patienceWith(row.held)}
		x.none(began)
		x.none(began.Add(row.after))
		if got := e.isListed(exportResource); got != row.want {
			t.Errorf("after %v with %d objects held: %v", row.after, len(row.held), got)
		}
	}
}
