// Package workload is the source of endpoints that announce themselves: the cluster's own sidecars and gateways.
//
// A sidecar holds one stream to its agent and says on it what it is; namespace and identity are those of its SVID,
// and its address must lie in a network of its cluster. It is an endpoint for as long as the stream lives:
//
//	announced -> as it says (healthy, unhealthy, draining)
//	stream lost -> unhealthy at once, so that nobody picks it; removed when GracePeriod has passed
//	most streams lost together -> unhealthy, and removed after RestorePeriod only: it may be the agent that is cut off
//	stream lost while draining -> removed at once: it said so itself
//	agent restarted -> as it was on disk for RestorePeriod, because the agent was away and not the workload; that time
//	begins when the agent can be reached again, which it cannot before it has an identity itself
//
// A name belongs to the identity that holds its stream; the same identity may take it over (the newest wins),
// another one may not. A service that no other source defines is made from what its sidecars announce, and is not
// exported. Nothing here trusts a field for who somebody is.
package workload
