// Package federate ties the cluster's trust domain to the others: its own bundle, signed, goes into the mesh state,
// and everybody else's goes into the cluster's SPIRE server.
//
//	SPIRE server -> own bundle -> signed with the agent's SVID -> Federation object of the own cluster
//	Federation objects of others (continuity was proven when they were accepted) -> Reconcile -> SPIRE server
//
// It runs when either side changes, when the agent's SVID is renewed (a signature lasts as long as the SVID), and
// every Interval. What the server holds stays in force whenever something fails; a domain is withdrawn from the
// server only while a controller says what there is, never from memory or disk alone.
package federate
