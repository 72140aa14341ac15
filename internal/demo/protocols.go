package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// Headers with which the gRPC server says where it runs and who asked.
const (
	RegionHeader = "x-served-region"
	ZoneHeader   = "x-served-zone"
	ClientHeader = "x-seen-client"
)

// serveGRPC offers the standard health service, whose Check is a call and whose Watch a stream, until ctx ends.
func (c ShopConfig) serveGRPC(ctx context.Context, listener net.Listener) error {
	tell := func(ctx context.Context) metadata.MD {
		incoming, _ := metadata.FromIncomingContext(ctx)
		client := clientID(strings.Join(incoming.Get("x-forwarded-client-cert"), ","))
		return metadata.Pairs(RegionHeader, c.Region, ZoneHeader, c.Zone, ClientHeader, client)
	}
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := grpc.SetHeader(ctx, tell(ctx)); err != nil {
				return nil, err
			}
			return handle(ctx, request)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := stream.SetHeader(tell(stream.Context())); err != nil {
				return err
			}
			return handle(server, stream)
		}))
	checks := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	stop := context.AfterFunc(ctx, func() {
		checks.Shutdown()
		server.Stop()
	})
	if err := server.Serve(listener); stop() {
		return fmt.Errorf("shop: grpc: %w", err)
	}
	return nil
}

// echoIdle is how long an echo connection may be silent.
const echoIdle = time.Minute

// serveEcho greets every connection with a line that says where it ended, a [Hop], and then sends back what it gets.
func (c ShopConfig) serveEcho(ctx context.Context, listener net.Listener, name string) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("shop: echo: %w", err)
		}
		open.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			json.NewEncoder(conn).Encode(Hop{Service: name, Cluster: c.Cluster, Region: c.Region, Zone: c.Zone})
			echo(conn)
		})
	}
}

func echo(conn net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		conn.SetDeadline(time.Now().Add(echoIdle))
		n, err := conn.Read(buffer)
		if n > 0 {
			if _, err := conn.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Echo sends text to an echo service at address and returns its greeting and what came back.
func Echo(ctx context.Context, address, text string) (*Hop, string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(upstreamTimeout))
	go func() {
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
	}()
	reader, hop := bufio.NewReader(conn), new(Hop)
	line, err := reader.ReadBytes('\n')
	if err != nil {
		return nil, "", fmt.Errorf("greeting: %w", err)
	}
	if err := json.Unmarshal(line, hop); err != nil {
		return nil, "", fmt.Errorf("greeting: %w", err)
	}
	back, err := io.ReadAll(reader)
	return hop, string(back), err
}
