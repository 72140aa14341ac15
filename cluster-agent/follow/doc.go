// Package follow is everything that the agent knows of the other clusters: the mesh objects that a controller sends
// by delta xDS, committed into the store.
//
//	update -> decode -> judge each object -> one Delta -> Store.Update -> ACK, or NACK that names what was refused
//
// A refused object changes nothing: the last good one stays, and the rest of its response is applied. Refused are
// objects that do not decode, kinds that no agent is to see, everything of the own cluster (only its agent may say
// that; the registration itself excepted), and a trust domain's bundle without continuity: one that is not signed
// under the bundle held before, however trusted the controller is that sent it.
//
// That holds for a domain that is removed and comes back as well, over a restart too. One that began anew, with other
// roots, is taken only where a person says so (Config.Forget).
//
// The xDS client keeps the last good copy on disk, with the versions; it comes here first, marked as such, and makes
// the agent able to serve without any controller.
package follow
