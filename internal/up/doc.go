// Package up runs a whole mesh on one machine: controllers, authorities, agents, gateways, sidecars, a small shop
// and its visitors, each an operating-system process of its own with an address of its own in 127.0.0.0/8.
//
// [Plan] is pure: options in, processes out. A [Supervisor] starts and stops them and answers on a Unix socket;
// [Run] walks the waves of the plan in order, registers the clusters on the way, and then shows what happens.
//
// It starts nothing outside its folder and its loopback addresses, and ends only what it started.
package up
