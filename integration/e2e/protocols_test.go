package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/periplus-mesh/periplus/internal/demo"
)

const visitorID = "spiffe://eu-west.mesh/ns/shop/sa/visitor"

// echoes is where the visitor's sidecar takes connections to the echo port of inventory.
func (m *mesh) echoes() string { return m.host(visitorA) + ":9000" }

// echoed sends text through the mesh to the echo port of inventory and says which region sent it back.
func echoed(ctx context.Context, text string) (string, error) {
	hop, back, err := demo.Echo(ctx, running.echoes(), text)
	if err != nil {
		return "", err
	}
	if back != text {
		return "", fmt.Errorf("%d bytes were sent, %d came back or others", len(text), len(back))
	}
	return hop.Region, nil
}

// openTCP is a connection through the mesh to the echo port of inventory, which has greeted, for 10 s.
func (m *mesh) openTCP(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", m.echoes())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	err = conn.SetDeadline(time.Now().Add(10 * time.Second))
	for one := make([]byte, 1); err == nil && one[0] != '\n'; {
		_, err = conn.Read(one)
	}
	if err != nil {
		t.Fatal("no greeting:", err)
	}
	return conn
}

// checked makes a gRPC call and opens a gRPC stream to inventory through the mesh and says which region answered.
func checked(ctx context.Context, client grpc_health_v1.HealthClient) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var header metadata.MD
	if _, err := client.Check(ctx, new(grpc_health_v1.HealthCheckRequest), grpc.Header(&header)); err != nil {
		return "", err
	}
	if got := header.Get(demo.ClientHeader); len(got) != 1 || got[0] != visitorID {
		return "", fmt.Errorf("the workload sees %v as its client", got)
	}
	// An error of the application arrives as it is, status and all.
	if _, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nothing"}); !strings.Contains(fmt.Sprint(err), "NotFound") {
		return "", fmt.Errorf("asked for what is not there: %v", err)
	}
	stream, err := client.Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
	if err != nil {
		return "", err
	}
	if _, err := stream.Recv(); err != nil {
		return "", fmt.Errorf("stream: %w", err)
	}
	return strings.Join(header.Get(demo.RegionHeader), ","), nil
}

// TCP and gRPC go through the sidecars as HTTP/1.1 does, to the own region and, when that has none, to another.
func TestTCPAndGRPC(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///"+running.outbound(visitorA), grpc.WithAuthority("inventory.shop:9090"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := grpc_health_v1.NewHealthClient(conn)
	long := strings.Repeat("0123456789abcdef", 1<<16) // a MiB
	for name, try := range map[string]func() (string, error){
		"tcp":  func() (string, error) { return echoed(t.Context(), long) },
		"grpc": func() (string, error) { return checked(t.Context(), client) },
	} {
		within(t, 5*time.Second, name, func() error {
			region, err := try()
			if err == nil && region != "eu-west" {
				err = fmt.Errorf("it came from %s", region)
			}
			return err
		})
	}
	running.act(t, "kill", "inventory-eu-west-a", "inventory-eu-west-b")
	took := within(t, 5*time.Second, "tcp in another region", func() error {
		region, err := echoed(t.Context(), long)
		if err == nil && region == "eu-west" {
			err = fmt.Errorf("it came from %s", region)
		}
		return err
	})
	t.Logf("tcp: another region after %v", took)
	took = within(t, 5*time.Second, "grpc in another region", func() error {
		region, err := checked(t.Context(), client)
		if err == nil && region == "eu-west" {
			err = fmt.Errorf("it came from %s", region)
		}
		return err
	})
	t.Logf("grpc: another region after %v more", took)
}
