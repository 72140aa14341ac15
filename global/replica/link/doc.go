// Package link is the connections between replicas that raft speaks over: mutual TLS 1.3, only between controllers of one
// control plane, none with a replica that was removed ([Layer]).
//
// Guarantees: a stranger learns and holds up nothing (handshakes are bounded in time and number, by host); an error of one
// Accept ends nothing; a replica whose disk hangs can fall silent, so that others take over, and speak again.
//
// It never speaks raft, and never decides who was removed or when to be silent: that is package replica's.
package link
