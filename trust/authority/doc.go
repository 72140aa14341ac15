// Package authority is an embedded stand-in for SPIRE: one trust domain's certificate authority, in one process.
//
// It serves what SPIRE serves, so that its clients need no second code path:
//   - on the server socket, for administrators: the SPIRE server API (package serverapi);
//   - on the workload socket, for everybody on the machine: the SPIFFE Workload API (package workloadapi).
//
// Both are over one authority with its roots and its state on disk (package ca), which knows neither of them:
//
//	run -> serverapi -+-> ca: one immutable state, saved and then published
//	    -> workloadapi+
//
// It never widens trust: foreign bundles come only through the server API. It never attests nodes, issues JWT-SVIDs or
// serves a second machine. Use SPIRE where that is needed.
package authority
