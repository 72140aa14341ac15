// Command gateway measures what passing TLS through by server name costs: CPU seconds per GiB and CPU microseconds
// per connection, of the east-west gateway, HAProxy and, where its stream module is installed, nginx, side by side
// in one run.
//
//	go run ./integration/bench/gateway            # all, 3 rounds
//	go run ./integration/bench/gateway -rounds 1 -seconds 2
//
// Every proxy has one core (taskset) and one thread, the load has another. CPU time is utime + stime of
// /proc/PID/stat. A client sends a real ClientHello; after it, bytes are just bytes, so that no time goes into
// encryption at the ends. The peers take turns in each round; figures are medians. "go splice" is the anchor: the
// least that a Go program does with package net, io.Copy between two sockets without looking at the hello.
//
// It runs in a network namespace of its own with Linux's default congestion control, so that figures of two machines
// can be compared; -host uses the machine's network as it is.
package main
