// Package authority is an embedded stand-in for SPIRE: one trust domain's certificate authority, in one process.
//
// It serves what SPIRE serves, so that its clients need no second code path:
//   - on the server socket, for administrators: the SPIRE server API (entry, bundle, trustdomain, localauthority);
//   - on the workload socket, for everybody on the machine: the SPIFFE Workload API.
//
// It guarantees: a workload gets the SVIDs of the registration entries whose selectors all hold for its
// process, as the kernel tells them (unix:uid, unix:gid, unix:path), and no others; a new root is published
// long before it signs and stays until it expired; the sequence number rises with every change of the bundle;
// what was acknowledged is on disk. It never widens trust: foreign bundles come only through the server API.
//
// It never attests nodes, issues JWT-SVIDs or serves a second machine. Use SPIRE where that is needed.
//
// The loop: requests and the rotation schedule change one immutable state (keeper), which is saved and then
// published; each open Workload API stream waits for the next state or the next renewal, computes what its
// process is entitled to, and sends it if it differs.
package authority
