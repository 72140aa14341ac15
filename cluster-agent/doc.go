// Package clusteragent is a cluster's agent: it says what its own cluster has, knows what the others have, and serves
// the cluster's proxies from the union.
//
//	services file, sidecars, SPIRE server -> own.Table  -+
//	controllers -> follow ---------------------------------> one mesh.Store -> adsserver -> sidecars, gateways
//	                                     report <----------+              +--> state on disk
//
// The agent dials out and is dialled only by proxies of its own trust domain. It guarantees that nothing it does not
// know counts as gone: a source that was not read, a controller that is away, a restart withdraw nothing. With all
// controllers away it goes on, and after a restart it serves from disk, new proxies included.
//
// It never publishes anything of another cluster, never takes its own cluster's objects from a controller, and never
// accepts a trust domain's bundle without continuity. Sub-packages do the work; this one wires them together.
package clusteragent
