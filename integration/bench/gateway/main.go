package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/integration/bench/isolate"
	"github.com/periplus-mesh/periplus/internal/freeport"
)

// settings of a run.
type settings struct {
	rounds      int
	duration    time.Duration
	streams     int // parallel, bulk
	concurrency int // connections at a time
	dir         string
	only        string // part of the names of the proxies to measure
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func start(ctx context.Context) error {
	var s settings
	role := flag.String("role", "", "internal: what this process is")
	listen := flag.String("listen", "", "internal: address of the role")
	upstream := flag.String("upstream", "", "internal: address behind it")
	flag.IntVar(&s.rounds, "rounds", 3, "how often each proxy is measured")
	seconds := flag.Float64("seconds", 4, "length of one measurement")
	flag.IntVar(&s.streams, "streams", 4, "parallel streams of the bulk measurement")
	flag.IntVar(&s.concurrency, "concurrency", 16, "parallel connections of the connection measurement")
	flag.StringVar(&s.only, "only", "", "measure only proxies whose name contains this")
	host := flag.Bool("host", false, "measure in the machine's own network, with its settings")
	isolated := flag.Bool(isolate.Flag, false, "internal: runs in a network namespace of its own")
	flag.Parse()
	s.duration = time.Duration(*seconds * float64(time.Second))
	if run, ok := roles[*role]; ok {
		return run(ctx, *listen, *upstream)
	}
	switch {
	case *isolated:
		if err := isolate.Enter(); err != nil {
			return err
		}
	case !*host:
		return isolate.Run(ctx)
	}
	setting, _ := os.ReadFile(isolate.CongestionFile)
	fmt.Printf("congestion control: %s", setting)
	dir, err := os.MkdirTemp("", "periplus-bench-gateway-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	return s.compare(ctx)
}

// roles are the processes that this program starts of itself.
var roles = map[string]func(ctx context.Context, listen, upstream string) error{
	"backend": runBackend, "gateway": runGateway, "anchor": runAnchor,
}

// result of one measurement.
type result struct{ cpuPerGiB, gibPerSecond, cpuMicrosPerConnection, connectionsPerSecond float64 }

func (s settings) compare(ctx context.Context) error {
	backend, err := startSelf(ctx, "backend", loadCPU, freeport.Loopback().String(), "")
	if err != nil {
		return err
	}
	defer backend.stop()
	if err := pinSelf(loadCPU); err != nil {
		return err
	}
	results := map[string][]result{}
	for round := range s.rounds {
		for _, peer := range peers {
			if !strings.Contains(peer.name, s.only) {
				continue
			}
			got, skipped, err := s.measure(ctx, peer, backend.address)
			if err != nil {
				return fmt.Errorf("%s: %w", peer.name, err)
			}
			if skipped != "" {
				if round == 0 {
					fmt.Printf("%s: skipped, %s\n", peer.name, skipped)
				}
				continue
			}
			results[peer.name] = append(results[peer.name], got)
		}
	}
	print(results)
	return nil
}

func (s settings) measure(ctx context.Context, p peer, backend string) (got result, skipped string, err error) {
	proxy, skipped, err := p.start(ctx, filepath.Join(s.dir, p.file), freeport.Loopback().String(), backend)
	if err != nil || skipped != "" {
		return got, skipped, err
	}
	defer proxy.stop()
	if err := awaitAnswer(proxy.address); err != nil {
		return got, "", err
	}
	before, begin := proxy.cpu(), time.Now()
	bytes, err := bulk(proxy.address, s.streams, s.duration)
	if err != nil {
		return got, "", err
	}
	gib := float64(bytes) / (1 << 30)
	got.cpuPerGiB = (proxy.cpu() - before).Seconds() / gib
	got.gibPerSecond = gib / time.Since(begin).Seconds()
	before, begin = proxy.cpu(), time.Now()
	connections, err := churn(proxy.address, s.concurrency, s.duration)
	if err != nil {
		return got, "", err
	}
	got.cpuMicrosPerConnection = float64((proxy.cpu() - before).Microseconds()) / float64(connections)
	got.connectionsPerSecond = float64(connections) / time.Since(begin).Seconds()
	return got, "", nil
}

func print(results map[string][]result) {
	columns := []func(result) float64{
		func(r result) float64 { return r.cpuPerGiB }, func(r result) float64 { return r.gibPerSecond },
		func(r result) float64 { return r.cpuMicrosPerConnection }, func(r result) float64 { return r.connectionsPerSecond },
	}
	own := results[peers[0].name] // of nobody: ratios are NaN
	fmt.Printf("\n%-22s %10s %8s %8s %14s %8s %12s\n", "", "CPU-s/GiB", "ratio", "GiB/s", "CPU-us/conn", "ratio", "conns/s")
	for _, p := range peers {
		of := results[p.name]
		if len(of) == 0 {
			continue
		}
		fmt.Printf("%-22s %10.3f %8.2f %8.2f %14.1f %8.2f %12.0f\n", p.name,
			median(of, columns[0]), median(of, columns[0])/median(own, columns[0]), median(of, columns[1]),
			median(of, columns[2]), median(of, columns[2])/median(own, columns[2]), median(of, columns[3]))
	}
	fmt.Println("\nratio: this proxy's cost / the gateway's. Target of the gateway: at most 0.25 CPU-s/GiB.")
}

func median(results []result, column func(result) float64) float64 {
	var values []float64
	for _, r := range results {
		values = append(values, column(r))
	}
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	return values[len(values)/2]
}
