package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/internal/up"
	"github.com/periplus-mesh/periplus/trust"
)

// pids are the processes as they run now.
func (m *mesh) pids(t *testing.T) map[string]int {
	t.Helper()
	report, err := m.control.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, p := range report.Processes {
		out[p.Name] = p.PID
	}
	return out
}

// state is what the mesh has agreed on, but for ages, and for the signatures under the bundles, which agents renew
// with their certificates.
func (m *mesh) state(t *testing.T) string {
	t.Helper()
	overview, err := m.client.Mesh.Overview(t.Context(), connect.NewRequest(&pb.OverviewRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	policies, err := m.client.Policies.GetPolicies(t.Context(), connect.NewRequest(&pb.GetPoliciesRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, c := range overview.Msg.GetClusters() {
		fmt.Fprintln(&out, c.GetCluster(), c.GetServices(), c.GetExportedServices(), c.GetEndpoints(), c.GetHealthyEndpoints(), c.GetGateways(), c.GetBundleSequence())
	}
	for _, s := range overview.Msg.GetServices() {
		fmt.Fprintln(&out, s)
	}
	for _, p := range policies.Msg.GetItems() {
		fmt.Fprintln(&out, p.GetKind(), p.GetName(), p.GetDigest())
	}
	return out.String()
}

// unharmed runs attack under load, and fails the test if a process died, a request failed or the state changed.
func unharmed(t *testing.T, attack func()) {
	t.Helper()
	running.withoutRetries(t, "catalog")
	before, state, logged, began := running.pids(t), running.state(t), running.logSizes(t), time.Now()
	l := startLoad(t, running.outbound(visitorA), "catalog.shop")
	attack()
	time.Sleep(500 * time.Millisecond)
	noneFailed(t, l.stop())
	if got := running.state(t); got != state {
		t.Errorf("the state changed:\n%s\nbefore:\n%s\nwhat the processes said of it:\n%s", got, state, running.said(began, "application|workload|announce|agent connected|reporting|election"))
	}
	running.noPanics(t, logged)
	for name, pid := range running.pids(t) {
		if pid != before[name] || pid == 0 {
			t.Errorf("%s runs as %d, before as %d", name, pid, before[name])
		}
	}
}

func (m *mesh) logPath(p up.Process) string { return filepath.Join(m.plan.Dir, "logs", p.Name+".log") }

func (m *mesh) logSizes(t *testing.T) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, p := range m.plan.Processes {
		info, err := os.Stat(m.logPath(p))
		if err != nil {
			t.Fatal(err)
		}
		out[p.Name] = info.Size()
	}
	return out
}

// noPanics wants that no log has a panic beyond the size it had: one that is recovered from ends no process.
func (m *mesh) noPanics(t *testing.T, from map[string]int64) {
	t.Helper()
	for _, p := range m.plan.Processes {
		data, err := os.ReadFile(m.logPath(p))
		if err != nil {
			t.Fatal(err)
		}
		if at := regexp.MustCompile(`panic serving|panic: |goroutine \d+ \[`).FindIndex(data[from[p.Name]:]); at != nil {
			t.Errorf("%s: a panic: %.2000s", p.Name, data[from[p.Name]:][at[0]:])
		}
	}
}

// said are the lines of all logs since a time that match a pattern.
func (m *mesh) said(since time.Time, pattern string) string {
	var out strings.Builder
	want, from := regexp.MustCompile(pattern), "time="+since.UTC().Format("2006-01-02T15:04:05.000Z")
	for _, p := range m.plan.Processes {
		data, err := os.ReadFile(m.logPath(p))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if line >= from && want.MatchString(line) {
				fmt.Fprintf(&out, "%s: %.300s", p.Name, line)
			}
		}
	}
	return out.String()
}

// listeners are every kind of listener of the mesh.
func listeners() (out []string) {
	for i := range 3 {
		for _, port := range []int{15012, 15013, 15014, 8080} {
			out = append(out, fmt.Sprintf("%s.%d.1:%d", prefix, i+1, port))
		}
	}
	return append(out,
		prefix+".1.2:15012", prefix+".1.2:15014", // agent
		prefix+".1.11:15443", prefix+".1.11:15014", // gateway
		prefix+".1.22:15001", prefix+".1.22:15006", prefix+".1.22:15014", // catalog's sidecar
		prefix+".1.23:15007", prefix+".1.23:15008", // inventory's gRPC and TCP
		prefix+".1.24:9000", // the visitor's TCP
	)
}

// hello is a ClientHello as crypto/tls writes it.
func hello(sni string) []byte {
	client, server := net.Pipe()
	defer server.Close()
	go tls.Client(client, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: []string{"h2", "periplus-http/1.1"}}).Handshake()
	buffer := make([]byte, 16<<10)
	n, _ := server.Read(buffer)
	return buffer[:n]
}

const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// hostile are requests that a careless parser trips over.
var hostile = []string{
	"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
	"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: catalog.shop\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", "\r\n\r\n\r\n\r\n", "GET",
	"GET / HTTP/1.1\r\nHost: catalog.shop\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "GET / HTTP/9.9\r\n\r\n", "\x00\x00\x00\x00", "GET / HTTP/1.1\nHost:\x00\n\n",
	"GET /" + strings.Repeat("a", 200<<10) + " HTTP/1.1\r\nHost: catalog.shop\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: catalog.shop\r\n" + strings.Repeat("X: y\r\n", 20_000) + "\r\n",
	"GET / HTTP/1.1\r\nX: " + strings.Repeat("z", 1<<20),
	"CONNECT catalog.shop:80 HTTP/1.1\r\nHost: catalog.shop\r\n\r\n", "GET / HTTP/1.1\r\nHost: catalog.shop\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: !!\r\n\r\n",
	h2Preface, h2Preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", 500),
}

// rubbish is the nth thing to send.
func rubbish(n int, random *rand.Rand) []byte {
	noise := make([]byte, 1+random.IntN(2048))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	switch n % 6 {
	case 0:
		return noise
	case 1: // a ClientHello with a few bytes changed
		data := hello("outbound_.80_._.catalog.shop.svc.cluster.local")
		for range 1 + random.IntN(8) {
			data[random.IntN(len(data))] = byte(random.Uint32())
		}
		return data
	case 2: // half a ClientHello
		data := hello("outbound_.80_._.inventory.shop.svc.cluster.local")
		return data[:random.IntN(len(data))]
	case 3: // a TLS record that says it is longer than records are
		return append([]byte{22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff}, noise...)
	case 4:
		return []byte(hostile[n/6%len(hostile)])
	}
	data := []byte(h2Preface) // HTTP/2 frames of any type with any content
	for len(noise) > 16 {
		length := min(len(noise)-9, random.IntN(64))
		data = append(data, 0, byte(length>>8), byte(length), byte(random.IntN(12)), noise[0])
		data = binary.BigEndian.AppendUint32(data, random.Uint32N(4))
		data, noise = append(data, noise[9:9+length]...), noise[9+length:]
	}
	return data
}

// throw writes data and reads a little of what comes back.
func throw(conn net.Conn, data []byte) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(150 * time.Millisecond))
	conn.Write(data)
	if tcp, ok := conn.(*net.TCPConn); ok && len(data)%2 == 0 {
		tcp.CloseWrite()
	}
	io.CopyN(io.Discard, conn, 4096)
}

// inParallel does something for numbers below n, a few at once.
func inParallel(n int, do func(int)) {
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < n; i += 8 {
				do(i)
			}
		})
	}
	all.Wait()
}

func TestGarbageFromStrangers(t *testing.T) {
	addresses := listeners()
	unharmed(t, func() {
		inParallel(len(addresses)*60, func(i int) {
			conn, err := net.DialTimeout("tcp", addresses[i%len(addresses)], time.Second)
			if err != nil {
				t.Errorf("%s: %v", addresses[i%len(addresses)], err)
				return
			}
			throw(conn, rubbish(i/len(addresses), rand.New(rand.NewPCG(1, uint64(i)))))
		})
	})
}

// rawCodec sends bytes as they are, as if they were a message.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

// twisted are messages that are well-formed and senseless.
func twisted(random *rand.Rand) []byte {
	names := make([]string, 5000)
	for i := range names {
		names[i] = fmt.Sprintf("outbound|%d||%d.shop.svc.cluster.local", i, random.Uint32())
	}
	huge := strings.Repeat("x", 1<<20)
	messages := []proto.Message{
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/none", ResponseNonce: "never sent"},
		&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", ResourceNamesSubscribe: names},
		&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: huge, Cluster: huge}, TypeUrl: huge},
		&discoveryv3.DiscoveryRequest{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", ResourceNames: names, VersionInfo: huge, ResponseNonce: "?"},
		&pb.ReportRequest{Message: &pb.ReportRequest_Update{Update: &pb.Update{Epoch: 1 << 63, Sequence: 1 << 63, Upserts: make([]*pb.Object, 0), Deletes: names}}},
		&pb.ReportRequest{Message: &pb.ReportRequest_Load{Load: &pb.LoadReport{Rows: []*pb.LoadRow{{LatencyCounts: make([]uint64, 100_000)}}}}},
		&pb.ReportRequest{}, &pb.AnnounceRequest{}, &pb.AnnounceRequest{Name: huge, Address: "::1"}, &pb.AnnounceRequest{Name: "_", Address: prefix + ".1.250"},
	}
	if n := random.IntN(2 * len(messages)); n < len(messages) {
		data, err := proto.Marshal(messages[n])
		if err != nil {
			panic(err)
		}
		return data
	}
	return rubbish(0, random)
}

// nonsense calls a method with senseless messages and returns how the call ended.
func nonsense(conn *grpc.ClientConn, method string, random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return err
	}
	for range 1 + random.IntN(4) {
		data := twisted(random)
		stream.SendMsg(&data)
	}
	stream.CloseSend()
	for range 10 {
		var answer []byte
		if err := stream.RecvMsg(&answer); err != nil {
			return err
		}
	}
	return nil
}

// Who has a good certificate can send garbage too.
func TestGarbageFromMembers(t *testing.T) {
	agent, visitor := agentCredential(t, "eu-west"), ownIdentity(t, "eu-west", "/ns/shop/sa/garbage")
	const ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	targets := []struct {
		address string
		source  trust.Source
		methods []string
	}{
		{running.controllers()[0], agent, []string{"/periplus.v1.AgentService/Report", "/periplus.v1.AgentService/Rotate", ads + "DeltaAggregatedResources", ads + "StreamAggregatedResources"}},
		{running.controllers()[1], visitor, []string{ads + "DeltaAggregatedResources", ads + "StreamAggregatedResources", "/periplus.v1.PeerService/Join", "/periplus.v1.PeerService/Propose"}},
		{running.controllers()[2], nil, []string{"/periplus.v1.AgentService/Register", "/periplus.v1.AgentService/Report", ads + "DeltaAggregatedResources"}},
		{prefix + ".1.2:15012", visitor, []string{"/periplus.v1.WorkloadService/Announce", "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats", ads + "DeltaAggregatedResources", ads + "StreamAggregatedResources"}},
	}
	unharmed(t, func() {
		var mu sync.Mutex
		ends := map[codes.Code]int{}
		for _, target := range targets {
			conn := connectAs(t, target.address, "", target.source)
			inParallel(len(target.methods)*16, func(i int) {
				method := target.methods[i%len(target.methods)]
				err := nonsense(conn, method, rand.New(rand.NewPCG(2, uint64(i))))
				if status.Code(err) == codes.Unavailable {
					t.Errorf("%s at %s: %v", method, target.address, err) // the server went away, or its connection did
				}
				mu.Lock()
				defer mu.Unlock()
				ends[status.Code(err)]++
			})
		}
		t.Logf("calls ended with %v", ends)
		// What is inside the connection is no better than what is outside.
		for _, inside := range []struct{ address, alpn string }{
			{prefix + ".1.22:15006", "periplus-http/1.1"}, {prefix + ".1.23:15007", "h2"}, {prefix + ".1.2:15012", "h2"}, {running.controllers()[0], "h2"},
		} {
			inParallel(40, func(i int) {
				config := trust.ClientConfig(visitor, trust.AuthorizeAny)
				config.NextProtos, config.ServerName = []string{inside.alpn}, "outbound_.80_._.catalog.shop.svc.cluster.local"
				conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 2 * time.Second}, "tcp", inside.address, config)
				if err != nil {
					t.Errorf("%v: %v", inside, err)
					return
				}
				throw(conn, rubbish(4+i%2+i/2*6, rand.New(rand.NewPCG(3, uint64(i)))))
			})
		}
	})
}

// hostileDocuments are what no policy is.
func hostileDocuments() map[string]string {
	laughs := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'k'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", c-1), 9), ","))
	}
	var indented strings.Builder
	for i := range 2000 {
		indented.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	head := "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: evil, namespace: shop}\nspec:\n"
	return map[string]string{
		"billion laughs": laughs + "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: *k\n",
		"anchors":        head + "  hosts: &h [catalog]\n  http: [*h]\n",
		"itself":         "a: &a [*a]\n",
		"brackets":       strings.Repeat("[", 100_000),
		"braces":         head + "  http: " + strings.Repeat("{a: ", 100_000),
		"indented":       indented.String(),
		"two MiB":        strings.Repeat("a", 2<<20),
		"two MiB value":  head + "  hosts: [\"" + strings.Repeat("h", 2<<20) + "\"]\n",
		"documents":      strings.Repeat("---\n{}\n", 100_000),
		"zero bytes":     strings.Repeat("\x00", 1000),
		"not UTF-8":      head + "  hosts: [\"\xff\xfe\"]\n",
		"twice":          head + "  hosts: [catalog]\n  hosts: [inventory]\n",
		"a tag":          "!!python/object/apply:os.system ['true']\n",
		"numbers":        head + "  http: 1e999999999\n",
		"nothing":        "", "null": "null\n", "a list": "[]\n", "a number": "1\n",
	}
}

func TestHostilePolicies(t *testing.T) {
	unharmed(t, func() {
		for name, document := range hostileDocuments() {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := running.tryApply(ctx, document)
			cancel()
			switch code := connect.CodeOf(err); {
			case err == nil:
				t.Errorf("%s: accepted", name)
			case code != connect.CodeInvalidArgument && code != connect.CodeResourceExhausted:
				t.Errorf("%s: %v: %.300v", name, code, err)
			case len(err.Error()) < 20 || len(err.Error()) > 10_000:
				t.Errorf("%s: an error of %d bytes: %.200v", name, len(err.Error()), err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
		}
		apply := exec.Command(running.binary, "policy", "apply", "-f", "-", "--context", "up")
		apply.Stdin = strings.NewReader(strings.Repeat("[", 100_000))
		if output, _ := apply.CombinedOutput(); apply.ProcessState.ExitCode() != 65 || len(output) == 0 || len(output) > 10_000 {
			t.Errorf("exit code %d, %d bytes: %.300s", apply.ProcessState.ExitCode(), len(output), output)
		}
	})
}
