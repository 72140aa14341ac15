package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/demo"
	"github.com/periplus-mesh/periplus/internal/up"
)

// process is a process of the plan.
func (m *mesh) process(name string) up.Process {
	i := slices.IndexFunc(m.plan.Processes, func(p up.Process) bool { return p.Name == name })
	if i < 0 {
		panic("no process " + name)
	}
	return m.plan.Processes[i]
}

// twin runs one more sidecar like the one named, at another address; it runs from the same path, so it is the same
// workload to the authority. Changes are more flags, which win over those of the original.
func (m *mesh) twin(t *testing.T, of, name, address string, changes ...string) func() {
	t.Helper()
	original := m.process(of)
	args := append(slices.Clone(original.Args), "--name", name, "--bind", address, "--admin-address", address+":15014", "--data-dir", filepath.Join(t.TempDir(), name))
	command, _ := spawn(t, m.plan.Binary(original), append(args, changes...)...)
	within(t, 20*time.Second, name+" is ready", func() error { return get("http://" + address + ":15014/ready") })
	return func() {
		if err := command.Process.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

// healthOf counts a cluster's endpoints of a service by what the sidecar was told of them.
func (m *mesh) healthOf(t *testing.T, sidecar, service string) map[string]int {
	out := map[string]int{}
	for line := range strings.Lines(read(t, m.admin(sidecar)+"/clusters")) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), "::")
		_, flags, ok := strings.Cut(rest, "::health_flags::")
		if ok && strings.HasSuffix(name, "|80||"+service+".shop.svc.cluster.local") {
			out[flags]++
		}
	}
	return out
}

// unwell announces endpoints of catalog that are not well, so many in each zone of eu-west, and waits until a sidecar
// knows of them. They go when the test ends.
func unwell(t *testing.T, sidecar string, perZone map[string]int) {
	t.Helper()
	client := pb.NewWorkloadServiceClient(connectAs(t, prefix+".1.2:15012", "", ownIdentity(t, "eu-west", "/ns/shop/sa/catalog")))
	known(t, sidecar, 0)
	t.Cleanup(func() { known(t, sidecar, 0) })
	host := 240
	for zone, n := range perZone {
		for range n {
			announceUnwell(t, client, zone, fmt.Sprintf("%s.1.%d", prefix, host))
			host++
		}
	}
	known(t, sidecar, host-240)
}

func announceUnwell(t *testing.T, client pb.WorkloadServiceClient, zone, address string) {
	t.Helper()
	stream, err := client.Announce(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	announce := func(health pb.Health) error {
		return stream.Send(&pb.AnnounceRequest{
			Name: "unwell-" + address, Address: address, Network: "eu-west", Locality: &pb.Locality{Region: "eu-west", Zone: zone}, Health: health, Weight: 1,
			Services: []*pb.AnnouncedService{{Name: "catalog", Ports: []*pb.AnnouncedPort{{Name: "http", Port: 80, Protocol: "http", EndpointPort: 15006}}}},
		})
	}
	if err := announce(pb.Health_HEALTH_UNHEALTHY); err != nil {
		t.Fatal(err)
	}
	if response, err := stream.Recv(); err != nil || len(response.GetRejections()) > 0 {
		t.Fatal(response, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(announce(pb.Health_HEALTH_DRAINING), stream.CloseSend()); err != nil {
			t.Error(err)
		}
	})
}

// known waits until a sidecar has so many endpoints of catalog that are not well.
func known(t *testing.T, sidecar string, unwell int) {
	t.Helper()
	within(t, 10*time.Second, fmt.Sprintf("%s knows of %d endpoints that are not well", sidecar, unwell), func() error {
		health := running.healthOf(t, sidecar, "catalog")
		if health["/failed_eds_health"] != unwell {
			return fmt.Errorf("%v", health)
		}
		return nil
	})
}

// manyRequests a second, for long enough that 2 points are more than three standard deviations of a share.
const manyRequests, longEnough = 250, 24 * time.Second

// A level of which F = 1.4 times the healthy part is less than all of it gives the rest to the next (Envoy, "Priority
// levels"): of a quarter 35 % stays.
func TestSharesFollowTheFormula(t *testing.T) {
	running.withoutRetries(t, "catalog")
	unwell(t, visitorA, map[string]int{"eu-west-a": 3})
	l := startLoadAt(t, running.outbound(visitorA), "catalog.shop", manyRequests)
	time.Sleep(longEnough)
	results := l.stop()
	noneFailed(t, results)
	near(t, results, zone, map[string]float64{"eu-west-a": 0.35, "eu-west-b": 0.65})
}

// The overflow of a region of which each zone has a quarter goes where the DestinationRule says, and nowhere else.
func TestOverflowFollowsTheFailoverRule(t *testing.T) {
	running.withoutRetries(t, "catalog")
	running.withPolicy(t, "DestinationRule", "catalog", failoverRule)
	unwell(t, visitorA, map[string]int{"eu-west-a": 3, "eu-west-b": 3})
	l := startLoadAt(t, running.outbound(visitorA), "catalog.shop", manyRequests)
	time.Sleep(longEnough)
	results := l.stop()
	noneFailed(t, results)
	near(t, results, region, map[string]float64{"eu-west": 0.70, "ap-south": 0.30})
	near(t, results, func(h *demo.Hop) string {
		if h.Region == "eu-west" {
			return h.Zone
		}
		return "elsewhere"
	}, map[string]float64{"eu-west-a": 0.35, "eu-west-b": 0.35, "elsewhere": 0.30})
}

// Two of a zone's four endpoints are killed: while they stay listed, unhealthy, half of the zone is left, of which 70 %
// of the requests stay; and then all.
func TestSharesWhenEndpointsAreKilled(t *testing.T) {
	running.withoutRetries(t, "catalog")
	known(t, visitorA, 0)
	healthy := running.healthOf(t, visitorA, "catalog")["healthy"]
	var kill []func()
	for i := range 3 {
		kill = append(kill, running.twin(t, "catalog-eu-west-a", fmt.Sprintf("catalog-more-%d", i), fmt.Sprintf("%s.1.%d", prefix, 200+i)))
	}
	within(t, 10*time.Second, "three more healthy endpoints", func() error {
		if health := running.healthOf(t, visitorA, "catalog"); health["healthy"] != healthy+3 {
			return fmt.Errorf("%v", health)
		}
		return nil
	})
	l := startLoadAt(t, running.outbound(visitorA), "catalog.shop", manyRequests)
	time.Sleep(time.Second)
	killed := time.Now()
	kill[0]()
	kill[1]()
	known(t, visitorA, 2)
	from := time.Now()
	time.Sleep(time.Until(killed.Add(8 * time.Second))) // they stay listed for the grace period of 10 s
	to := time.Now()
	known(t, visitorA, 2)
	within(t, 10*time.Second, "the dead are removed", func() error {
		if health := running.healthOf(t, visitorA, "catalog"); health["/failed_eds_health"] > 0 {
			return fmt.Errorf("%v", health)
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	results := l.stop()
	if late := failed(since(results, killed.Add(time.Second))); len(late) > 0 {
		t.Errorf("%d requests sent more than 1 s later failed: %v", len(late), late[0].err)
	}
	near(t, before(results, killed.Add(-inFlight)), zone, map[string]float64{"eu-west-a": 1})
	// Of so few requests the standard deviation is about a point.
	nearBy(t, before(since(results, from), to), zone, map[string]float64{"eu-west-a": 0.70, "eu-west-b": 0.30}, 0.04)
	near(t, last(results, time.Second), zone, map[string]float64{"eu-west-a": 1})
}
