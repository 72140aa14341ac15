package grpc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	xdscreds "google.golang.org/grpc/credentials/xds"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // the xds scheme

	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// envClient makes the test binary a client that takes orders at the address it says.
const envClient = "PERIPLUS_TEST_GRPC_CLIENT"

func TestMain(m *testing.M) {
	if address := os.Getenv(envClient); address != "" {
		fmt.Fprintln(os.Stderr, serveOrders(address))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// outcome is what came of some calls.
type outcome struct {
	Answers map[string]int // by server
	Callers map[string]int // by the caller's SPIFFE ID, as servers saw it
	Errors  map[string]int // by code and message
}

func (o outcome) failed() int {
	n := 0
	for _, count := range o.Errors {
		n += count
	}
	return n
}

// orders keeps a channel for each target, as a program would.
type orders struct {
	mu       sync.Mutex
	channels map[string]*grpc.ClientConn
}

func serveOrders(address string) error {
	o := &orders{channels: map[string]*grpc.ClientConn{}}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(listener, o)
}

// ServeHTTP makes n calls to a target, with the headers given as key=value.
func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	n, _ := strconv.Atoi(query.Get("n"))
	timeout, err := time.ParseDuration(query.Get("timeout"))
	if err != nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	channel, err := o.channel(query.Get("target"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	json.NewEncoder(w).Encode(call(r.Context(), channel, n, timeout, query["header"]))
}

func (o *orders) channel(target string) (*grpc.ClientConn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.channels[target]; c != nil {
		return c, nil
	}
	credentials, err := xdscreds.NewClientCredentials(xdscreds.ClientOptions{FallbackCreds: insecure.NewCredentials()})
	if err != nil {
		return nil, err
	}
	c, err := grpc.NewClient(target, grpc.WithTransportCredentials(credentials))
	if err == nil {
		o.channels[target] = c
	}
	return c, err
}

func call(ctx context.Context, channel *grpc.ClientConn, n int, timeout time.Duration, headers []string) outcome {
	out := outcome{Answers: map[string]int{}, Callers: map[string]int{}, Errors: map[string]int{}}
	client := testpb.NewTestServiceClient(channel)
	for range n {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, headers...), timeout)
		answer, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
		cancel()
		if err != nil {
			out.Errors[status.Code(err).String()+": "+status.Convert(err).Message()]++
			continue
		}
		out.Answers[answer.GetHostname()]++
		out.Callers[answer.GetUsername()]++
	}
	return out
}

// client is a process of it, under the test's control.
type client struct {
	*realdeps.Process
	address string
}

// startClient starts a client with a bootstrap file and more environment.
func startClient(t testing.TB, name, bootstrap string, env ...string) *client {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &client{address: realdeps.Address()}
	env = append(env, envClient+"="+c.address, "GRPC_XDS_BOOTSTRAP="+bootstrap, "GRPC_GO_LOG_SEVERITY_LEVEL=warning")
	c.Process = realdeps.Run(t, name, binary, env)
	c.Await(10*time.Second, realdeps.Answers(http.DefaultClient, "http://"+c.address+"/"))
	return c
}

// call makes n calls to an xDS target.
func (c *client) call(target string, n int, headers ...string) (outcome, error) {
	var out outcome
	query := url.Values{"target": {"xds:///" + target}, "n": {strconv.Itoa(n)}, "timeout": {"3s"}, "header": headers}
	response, err := http.Get("http://" + c.address + "/?" + query.Encode())
	if err != nil {
		return out, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return out, fmt.Errorf("client: %s", response.Status)
	}
	return out, json.NewDecoder(response.Body).Decode(&out)
}

// answered is an Eventually function: n calls are answered by this server alone.
func (c *client) answered(target string, n int, server string) func() error {
	return func() error {
		out, err := c.call(target, n)
		if err == nil && out.Answers[server] != n {
			err = fmt.Errorf("%s: want %s alone, got %v", target, server, out)
		}
		return err
	}
}
