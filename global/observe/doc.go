// Package observe keeps what is observed but not agreed on: which agents are connected, when they were last heard,
// what load they report.
//
// A [Board] holds its own replica's observations and, for each other replica, the newest that it shared; whole states
// are exchanged every second, so nothing is lost by losing one. Ages are measured by the receiver's monotonic clock
// and travel as durations: clocks that differ between machines do not matter. Nothing here is written to raft, and
// nothing here removes an endpoint.
//
//	agent's stream -> Connect, Heard, Load -> Share to all replicas -> View: newest per cluster, with its age
package observe
