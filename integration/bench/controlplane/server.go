package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/periplus-mesh/periplus/internal/ads"
	"github.com/periplus-mesh/periplus/internal/ads/adsserver"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/catalog"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/trust"
)

const (
	clusterID = "east"
	network   = "east-1"
	region    = "east"
)

// serve is the server process. Commands come line by line on stdin, each is answered by one line.
func serve(o options) error {
	store := new(mesh.Store)
	store.Update(shop(o))
	store.MarkReady()
	listener, err := net.Listen("tcp", o.serve)
	if err != nil {
		return err
	}
	grpcOptions := ads.ServerOptions()
	if o.tls {
		source, err := identities()
		if err != nil {
			return err
		}
		grpcOptions = append(grpcOptions, grpc.Creds(credentials.NewTLS(trust.ServerConfig(source, trust.AuthorizeAny))))
	}
	grpcServer := grpc.NewServer(grpcOptions...)
	if o.floor {
		floor := newFloor(store)
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(grpcServer, floor)
		go floor.follow()
	} else {
		adsserver.New(adsserver.Config[*mesh.Snapshot]{
			State: store, Authorize: authorize, Metrics: prometheus.NewRegistry(),
		}).Register(grpcServer)
	}
	writes := new(writes)
	go func() { _ = grpcServer.Serve(stamped{listener, writes}) }()
	fmt.Println(listener.Addr())
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		answer, err := command(store, writes, o, strings.Fields(commands.Text()))
		if err != nil {
			return err
		}
		fmt.Println(answer)
	}
	grpcServer.Stop()
	return nil
}

func authorize(_ context.Context, _ adsserver.Peer, node *corev3.Node) (xds.Catalog[*mesh.Snapshot], error) {
	view, err := translate.ViewOf(translate.Sidecar, clusterID, "shop", node)
	if err != nil {
		return nil, err
	}
	return catalog.Of(view), nil
}

func command(store *mesh.Store, w *writes, o options, words []string) (string, error) {
	switch words[0] {
	case "profile":
		file, err := os.Create(words[1]) // closed with the process
		if err != nil {
			return "", err
		}
		return "ok", pprof.StartCPUProfile(file)
	case "profiled":
		pprof.StopCPUProfile()
		return "ok", nil
	case "usage":
		return usage()
	case "written":
		return strconv.FormatInt(w.last.Load(), 10), nil
	case "change":
		pause, err := time.ParseDuration(words[3])
		if err != nil {
			return "", err
		}
		defer time.Sleep(pause)
		return change(store, o, words[1], words[2])
	case "replay":
		o.rate = 1_000_000
		return change(store, o, words[1], words[2])
	}
	return "", fmt.Errorf("unknown command %q", words)
}

// writes remembers when a connection last took a response, in Unix nanoseconds.
type writes struct{ last atomic.Int64 }

// responseBytes is less than any resource and more than any frame of HTTP/2's own.
const responseBytes = 512

type stamped struct {
	net.Listener
	*writes
}

func (s stamped) Accept() (net.Conn, error) {
	conn, err := s.Listener.Accept()
	return stampedConn{conn, s.writes}, err
}

type stampedConn struct {
	net.Conn
	*writes
}

func (s stampedConn) Write(data []byte) (int, error) {
	n, err := s.Conn.Write(data)
	if n >= responseBytes {
		s.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// usage answers CPU seconds and resident KiB.
func usage() (string, error) {
	cpu, err := cpuTime()
	if err != nil {
		return "", err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	return fmt.Sprintf("%f %s", cpu.Seconds(), strings.Fields(rest)[0]), nil
}

// cpuTime is what this process has used.
func cpuTime() (time.Duration, error) {
	var r syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()), err
}

// change makes count changes at the rate and answers when each was committed, in Unix nanoseconds.
func change(store *mesh.Store, o options, from, many string) (string, error) {
	first, err := strconv.Atoi(from)
	if err != nil {
		return "", err
	}
	count, err := strconv.Atoi(many)
	if err != nil {
		return "", err
	}
	var times strings.Builder
	ticker := time.NewTicker(time.Second / time.Duration(o.rate))
	defer ticker.Stop()
	for i := first; i < first+count; i++ {
		slice := moved(store, i%o.services)
		slice.Endpoints[0].Address = netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
		fmt.Fprintf(&times, "%d ", time.Now().UnixNano())
		store.Update(mesh.Delta{Upserts: []mesh.Object{slice}})
		<-ticker.C
	}
	return times.String(), nil
}

// moved is a copy of the service's slice, to be changed. It is made of the one in force: the time counts as the server's.
func moved(store *mesh.Store, service int) *mesh.EndpointSlice {
	slice := &mesh.EndpointSlice{Service: serviceName(service), Cluster: clusterID, Slice: "s"}
	snapshot, _ := store.Latest()
	if object, ok := snapshot.Get(slice.Key()); ok {
		*slice = *object.(*mesh.EndpointSlice)
		slice.Endpoints = slices.Clone(slice.Endpoints)
	}
	return slice
}

// shop is the whole state.
func shop(o options) mesh.Delta {
	domain := trustDomain()
	delta := mesh.Delta{Upserts: []mesh.Object{&mesh.Cluster{
		ID: clusterID, Region: region, TrustDomain: domain, State: mesh.ClusterActive,
		Networks: []mesh.NetworkRange{{Name: network}},
	}}}
	for i := range o.services {
		delta.Upserts = append(delta.Upserts, &mesh.Service{
			Name: serviceName(i), Cluster: clusterID, Exported: true,
			Ports: []mesh.ServicePort{{Name: "http", Port: 80, Protocol: mesh.HTTP}},
		}, sliceOf(o, i))
	}
	return delta
}

func serviceName(i int) mesh.ServiceName {
	return mesh.ServiceName{Namespace: "shop", Name: fmt.Sprintf("service-%04d", i)}
}

func sliceOf(o options, service int) *mesh.EndpointSlice {
	slice := &mesh.EndpointSlice{Service: serviceName(service), Cluster: clusterID, Slice: "s"}
	identity := workloadID()
	for i := range o.endpoints {
		slice.Endpoints = append(slice.Endpoints, mesh.Endpoint{
			Name: fmt.Sprintf("e%d", i), Address: netip.AddrFrom4([4]byte{10, byte(service >> 8), byte(service), byte(i + 1)}),
			Ports: map[string]uint16{"http": 8080}, Network: network,
			Locality: mesh.Locality{Region: region, Zone: fmt.Sprintf("z%d", i%2)}, Health: mesh.Healthy, Weight: 100,
			Identity: identity,
		})
	}
	return slice
}
