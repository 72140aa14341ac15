// Package spire shows, with two real SPIRE servers and agents, that two trust domains meet through the mesh: bundles,
// federation relationships and entries by the server API, SVIDs by the Workload API, requests between sidecars with
// both identities verified, a change of roots under load, refusals, outages and removal.
//
// One test owns all processes; its parts run in order, each on what the one before left.
package spire
