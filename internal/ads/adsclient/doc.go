// Package adsclient is the client of the aggregated discovery service: [Run] keeps one delta stream alive over an
// ordered list of targets, resumed by initial_resource_versions, with the last good set of resources on disk.
//
//	disk -> Apply; connect to the first target that answers -> receive -> Apply -> ACK or NACK -> disk
//
// While a later target is in use the earlier ones are tried, and the stream moves before it lets go. Whatever is lost, the
// resources that were applied stay in use, and nothing that the client has is sent again by a target that has the same.
// It never interprets resources, beyond the names that follow from clusters and listeners.
package adsclient
