// Command controlplane measures the control plane's server: many proxies on delta CDS and EDS, endpoint changes at a
// fixed rate, server and load client as two processes with a core each.
//
//	go run ./integration/bench/controlplane -proxies 1000
//
// The server process serves package translate's catalogs with package ads from one mesh store. The client process
// opens one connection and one stream per proxy; it decodes no more than it needs. A change moves one endpoint to an
// address that says the change's number, so that each receipt is matched with the moment of its change.
//
// It prints the time until all proxies are warm, change -> receipt (p50, p99, max), receipts lost, the server's CPU
// time and resident memory, changes made alone (and whose time they take), and what is sent again when all proxies move to
// another replica.
package main
