// Package report carries the own cluster up to the controllers, over one stream that the agent dials.
//
//	dial the next controller -> Hello -> Welcome: what the controllers have of this cluster, by digest
//	dirty = what differs from it -> one Update at a time -> Ack -> no longer dirty
//	store changes -> dirty grows -> ...
//
// One update is in flight: a change that comes alone leaves at once, and while one is on its way all others are
// merged, so the slower the controllers the larger the updates. What a controller refused is not sent again until
// it changes. A key that the controllers have and this agent never had is deleted only when the sources have
// synced: unknown is never empty. After a lost stream nothing is assumed: the next Welcome says what arrived.
// Load goes up the same stream, and is dropped while there is none.
package report
