package up

import (
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/periplus-mesh/periplus/global/pki"
)

func plan(t *testing.T, o Options) *Plan {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	p, err := NewPlan(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Every process has a name, a binary and listening addresses of its own, however many clusters there are.
func TestPlanGivesEachItsOwn(t *testing.T) {
	for clusters := 1; clusters <= len(regions); clusters++ {
		p := plan(t, Options{Clusters: clusters})
		if want := 3 + clusters*(1+1+2+2+8) + 1; len(p.Processes) != want {
			t.Errorf("%d clusters: %d processes, want %d", clusters, len(p.Processes), want)
		}
		names, listens := map[string]bool{}, map[string]bool{}
		for _, process := range p.Processes {
			if names[process.Name] {
				t.Errorf("%s twice", process.Name)
			}
			names[process.Name] = true
		}
		for _, process := range p.Processes {
			for _, address := range process.Listens {
				if listens[address] || !strings.HasPrefix(address, "127.20.") {
					t.Errorf("%s: %s twice, or outside the prefix", process.Name, address)
				}
				listens[address] = true
			}
		}
	}
}

func TestOptionsAreRefusedWithAReason(t *testing.T) {
	long := "/tmp/" + strings.Repeat("x", 100)
	for _, c := range []struct {
		options Options
		says    string
	}{
		{Options{Clusters: 10}, "--clusters 10"},
		{Options{Clusters: -1}, "--clusters -1"},
		{Options{Prefix: "10.0"}, "loopback"},
		{Options{Prefix: "127.1.2"}, "loopback"},
		{Options{Dir: long}, "shorter path"},
		{Options{Dir: "/tmp/a,b"}, "must not contain"},
		{Options{Rate: -1}, "--rate -1"},
		{Options{Rate: math.NaN()}, "--rate NaN"},
		{Options{Rate: 1e12}, "--rate 1e+12"},
		{Options{SVIDTTL: "soon"}, "--svid-ttl soon"},
		{Options{SVIDTTL: "720h"}, "--svid-ttl 720h"},
	} {
		if _, err := NewPlan(c.options); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%+v: %v does not say %q", c.options, err, c.says)
		}
	}
}

// The second try, at other addresses, must not be held to those that were taken.
func TestAddressInUseIsNamed(t *testing.T) {
	p := plan(t, Options{Prefix: "127.97"})
	taken, err := net.Listen("tcp", p.Processes[len(p.Processes)-1].Listens[0])
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = Run(t.Context(), p, io.Discard, nil)
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) || !strings.Contains(err.Error(), "--prefix") {
		t.Errorf("%v does not name the address and the way out", err)
	}
	if err := plan(t, Options{Dir: p.Dir, Prefix: "127.96"}).samePrefix(); err != nil {
		t.Errorf("after a start that failed: %v", err)
	}
}

// No prefix helps against a program that listens on every address.
func TestPortInUseOnAllAddressesIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	p := &Plan{Processes: []Process{{Listens: []string{"127.97.1.1:" + port}}}}
	if err := p.free(); err == nil || !strings.Contains(err.Error(), "port "+port+" of all addresses") || strings.Contains(err.Error(), "--prefix") {
		t.Errorf("got %v", err)
	}
}

func TestASecondStartGoesOnWithWhatTheFolderRemembers(t *testing.T) {
	p := plan(t, Options{Prefix: "127.97", Clusters: 5})
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.keep(); err != nil {
		t.Fatal(err)
	}
	if err := p.writeServices(); err != nil { // the mesh's own files have other names
		t.Fatal(err)
	}
	o, err := Options{Dir: p.Dir}.Resumed()
	if err != nil || o.Prefix != "127.97" || o.Clusters != 5 {
		t.Errorf("resumed with %q and %d clusters: %v", o.Prefix, o.Clusters, err)
	}
	if o, err := (Options{Dir: p.Dir, Prefix: "127.96", Clusters: 2}).Resumed(); err != nil || o.Prefix != "127.96" || o.Clusters != 2 {
		t.Errorf("what was asked for is %q and %d clusters: %v", o.Prefix, o.Clusters, err)
	}
	if err := plan(t, Options{Dir: p.Dir, Prefix: "127.96"}).samePrefix(); err == nil || !strings.Contains(err.Error(), "--prefix 127.97") {
		t.Errorf("other addresses than the folder's: %v", err)
	}
	if o, err := (Options{Dir: t.TempDir()}).Resumed(); err != nil || o.Prefix != "" || o.Clusters != 0 {
		t.Errorf("a new folder: %+v, %v", o, err)
	}
}

// A first start that was cut off while it made the keys does not keep the second from starting.
func TestKeysThatAreMissingAreMade(t *testing.T) {
	p := plan(t, Options{})
	if err := pki.Init(p.path("pki"), planeDomain, []string{p.controllerName(0)}, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.keys(); err != nil {
		t.Fatal(err)
	}
	for i := range controllers {
		if _, err := pki.Load(p.path("pki", p.controllerName(i))); err != nil {
			t.Error(err)
		}
	}
	if _, err := p.OperatorContext().Connect(); err != nil {
		t.Error(err)
	}
}

func TestFolderInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	held, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "periplus down") {
		t.Errorf("got %v", err)
	}
	held.Close()
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
