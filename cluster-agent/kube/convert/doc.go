// Package convert is the rules by which Kubernetes objects become mesh objects. It is pure: it has no client, no clock
// and no Kubernetes types; the same records give the same objects.
//
//	record -> State.Set -> names of the Services that it may concern -> State.Convert -> mesh objects, with reasons
//
// The unit is the Service: its mesh object, a mesh slice for each of its EndpointSlices, and one for each of its
// sidecars that announced itself. Converting only what a change concerns gives what converting everything gives.
//
// Nothing is left out without a [Rejection] that says why.
package convert
