package health

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/periplus-mesh/periplus/proxy/config"
)

// errStatus: the endpoint answered, and said that it is not well.
var errStatus = errors.New("wrong status")

// maxReceive bounds what is read of an endpoint, in bytes: it is not trusted with the proxy's memory.
const maxReceive = 64 << 10

// askTCP sends, and looks for the expected parts in order; with nothing expected a connection is enough.
func askTCP(conn net.Conn, h *config.HealthCheck) error {
	if len(h.Send) > 0 {
		if _, err := conn.Write(h.Send); err != nil {
			return err
		}
	}
	var got []byte
	for !contains(got, h.Receive) {
		chunk := make([]byte, 4096)
		n, err := conn.Read(chunk)
		if got = append(got, chunk[:n]...); len(got) > maxReceive {
			return errors.New("answer too long")
		}
		if err != nil && !contains(got, h.Receive) {
			return err
		}
	}
	return nil
}

func contains(got []byte, parts [][]byte) bool {
	for _, part := range parts {
		i := bytes.Index(got, part)
		if i < 0 {
			return false
		}
		got = got[i+len(part):]
	}
	return true
}

func askHTTP(ctx context.Context, conn net.Conn, h *config.HTTPHealthCheck, cluster string) error {
	request, err := http.NewRequestWithContext(ctx, h.Method, "http://"+conn.RemoteAddr().String()+h.Path, nil)
	if err != nil {
		return err
	}
	request.Host = cmp.Or(h.Host, cluster)
	request.Header.Set("User-Agent", "Periplus/HC")
	for _, op := range h.Headers {
		request.Header.Set(op.Name, op.Value)
	}
	response, err := roundTrip(conn, request, h.HTTP2)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if !expected(h, response.StatusCode) {
		return fmt.Errorf("%w %d", errStatus, response.StatusCode)
	}
	return nil
}

func roundTrip(conn net.Conn, request *http.Request, h2 bool) (*http.Response, error) {
	if h2 {
		client, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(conn)
		if err != nil {
			return nil, err
		}
		defer client.Close()
		return client.RoundTrip(request)
	}
	request.Close = true
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxReceive)), request)
}

func expected(h *config.HTTPHealthCheck, status int) bool {
	for _, r := range h.Expected {
		if int64(status) >= r.Start && int64(status) < r.End {
			return true
		}
	}
	return len(h.Expected) == 0 && status == http.StatusOK
}

func askGRPC(ctx context.Context, conn net.Conn, service string) error {
	client, err := grpc.NewClient("passthrough:///endpoint", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		return err
	}
	defer client.Close()
	answer, err := grpc_health_v1.NewHealthClient(client).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		return fmt.Errorf("%w %v", errStatus, answer.GetStatus())
	}
	return nil
}
