// Package eastwest is the east-west gateway: the way into a network from other networks.
//
// It reads the server name of a TLS connection and passes the connection on, unread, to an endpoint of that service.
// mTLS is between the sidecars at the two ends; the gateway holds no workload's key and could not read a byte. It
// is driven by xDS alone (listener "eastwest", clusters named like the server name, endpoints), so what it may dial
// is what the control plane lists: the exported services of its own network. An address is never taken from a
// connection. A name that is not in the table, another protocol, an encrypted name: the connection is closed and
// counted.
//
//	xDS update -> proxy/config -> table (immutable, atomic pointer)
//	accept -> peek the ClientHello -> table -> balance.Pick -> dial (another endpoint on failure) -> splice
//
// It starts from the resources on disk when no control plane answers, and also while no identity is to be had. When
// the context of [Run] ends it drains: announces DRAINING, goes on accepting until its clients have moved, then lets
// open connections end by themselves until DrainTime.
package eastwest
