package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the same in both processes.
type options struct {
	serve     string // role of this process: "" is the load client, which starts the servers
	proxies   int
	services  int
	endpoints int
	lone      int
	changes   int
	rate      int
	tls       bool
	floor     bool
	profile   string
	settle    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.serve, "serve", "", "internal: be the server, and listen at this address")
	flag.IntVar(&o.proxies, "proxies", 1000, "proxies, one connection and one stream each")
	flag.IntVar(&o.services, "services", 1000, "services")
	flag.IntVar(&o.endpoints, "endpoints", 10, "endpoints per service")
	flag.IntVar(&o.lone, "lone", 10, "endpoint changes one at a time")
	flag.IntVar(&o.changes, "changes", 1000, "endpoint changes")
	flag.IntVar(&o.rate, "rate", 50, "changes per second")
	flag.BoolVar(&o.tls, "tls", false, "mutual TLS 1.3 instead of plaintext")
	flag.BoolVar(&o.floor, "floor", false, "serve with the least that could work: the same bytes to every stream, and nothing else")
	flag.StringVar(&o.profile, "profile", "", "write CPU profiles to files that begin so: of the server PREFIX.warm, .lone and .changes, of the proxies PREFIX.warm.proxies, ...")
	flag.DurationVar(&o.settle, "settle", 2*time.Second, "pause between the phases")
	flag.Parse()
	run := drive
	if o.serve != "" {
		run = serve
	}
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		os.Exit(1)
	}
}
