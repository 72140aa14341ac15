package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Hop is one service's part of an answer.
type Hop struct {
	Service string `json:"service"`
	Cluster string `json:"cluster"`
	Region  string `json:"region"`
	Zone    string `json:"zone"`
	// Client is the caller's SPIFFE ID as the sidecar verified it.
	Client   string `json:"client,omitempty"`
	Error    string `json:"error,omitempty"`
	Upstream *Hop   `json:"upstream,omitempty"`
}

// Service is one service of the shop.
type Service struct {
	Name     string
	Listener net.Listener
	// GRPC and Echo are more ports of the service; nil for none.
	GRPC, Echo net.Listener
	// Next is the service that it asks ("catalog.shop"), through the proxy at Proxy (host:port); "" asks nobody.
	Next, Proxy string
}

// ShopConfig is the part of the shop that runs in one zone.
type ShopConfig struct {
	Cluster, Region, Zone string
	Services              []Service
}

// upstreamTimeout bounds one question to the next service.
const upstreamTimeout = 5 * time.Second

// RunShop serves until ctx ends, then lets open requests finish.
func RunShop(ctx context.Context, c ShopConfig) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, service := range c.Services {
		client := NewClient(service.Proxy)
		handler := func(w http.ResponseWriter, r *http.Request) { c.answer(w, r, service, client) }
		server := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: 10 * time.Second}
		group.Go(func() error {
			if err := server.Serve(service.Listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("shop: %s: %w", service.Name, err)
			}
			return nil
		})
		if service.GRPC != nil {
			group.Go(func() error { return c.serveGRPC(ctx, service.GRPC) })
		}
		if service.Echo != nil {
			group.Go(func() error { return c.serveEcho(ctx, service.Echo, service.Name) })
		}
		group.Go(func() error {
			<-ctx.Done()
			defer client.CloseIdleConnections()
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), upstreamTimeout)
			defer cancel()
			if err := server.Shutdown(stop); errors.Is(err, context.DeadlineExceeded) {
				return server.Close() // a request that takes longer than the shop waits for any is cut off
			} else {
				return err
			}
		})
	}
	return group.Wait()
}

func (c ShopConfig) answer(w http.ResponseWriter, r *http.Request, s Service, client *http.Client) {
	hop := Hop{Service: s.Name, Cluster: c.Cluster, Region: c.Region, Zone: c.Zone, Client: clientID(r.Header.Get("X-Forwarded-Client-Cert"))}
	status := http.StatusOK
	switch {
	case r.URL.Path == "/healthz":
		w.WriteHeader(status)
		return
	case strings.HasPrefix(r.URL.Path, "/slow"):
		wait(r)
	case strings.HasSuffix(r.URL.Path, "flaky") && flaky(r):
		http.Error(w, "this one fails", http.StatusServiceUnavailable)
		return
	}
	if s.Next != "" {
		upstream, err := Ask(r.Context(), client, s.Next, "/")
		if hop.Upstream = upstream; err != nil {
			status, hop.Error = http.StatusBadGateway, err.Error()
		}
	}
	var body bytes.Buffer
	json.NewEncoder(&body).Encode(hop)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// clientID reads the URI of the last x-forwarded-client-cert element, which the own sidecar wrote.
func clientID(header string) string {
	elements := strings.Split(header, ",")
	for part := range strings.SplitSeq(elements[len(elements)-1], ";") {
		if uri, ok := strings.CutPrefix(strings.TrimSpace(part), "URI="); ok {
			return strings.Trim(uri, `"`)
		}
	}
	return ""
}

// NewClient sends every request to the proxy at host:port, whatever its authority.
func NewClient(proxy string) *http.Client {
	dialer := net.Dialer{Timeout: time.Second}
	return &http.Client{Timeout: upstreamTimeout, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, proxy)
		},
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second,
	}}
}

// Ask asks a service and reads its hop. An answer that is no success is an error that names its status.
func Ask(ctx context.Context, client *http.Client, service, path string) (*Hop, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+service+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", service, err)
	}
	hop := new(Hop)
	if json.Unmarshal(body, hop) != nil || hop.Service == "" {
		hop = nil
	}
	if response.StatusCode != http.StatusOK {
		return hop, fmt.Errorf("%s: status %d: %.200s", service, response.StatusCode, strings.TrimSpace(string(body)))
	}
	return hop, nil
}
