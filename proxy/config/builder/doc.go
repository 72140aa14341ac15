// Package builder makes the versions of a proxy's configuration from xDS updates.
//
// A [Builder] holds the current resources by type. Each update is decoded and checked once, here, and nowhere after. A
// resource that cannot be done as asked is refused with an error that names resource and field (it becomes the NACK) and
// its last good version stays; the other resources of the update are applied, as Envoy does, so that one bad resource
// does not hold up the rest.
//
// The removal of routes or endpoints that are there and that something still refers to is not believed: "unknown" is
// never "empty". They go with the last listener or cluster that names them. Of those that never came, "removed" says
// that there are none (xDS: the answer to a subscription to what does not exist).
//
// It never dials, never reads a clock, and never changes a Config that it has published.
package builder
