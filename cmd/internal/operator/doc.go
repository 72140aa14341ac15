// Package operator is what every command that talks to a running mesh has: a client of the mesh that --context and
// the contexts file say, completion with the names that are in that mesh, and ages as people read them.
//
// Nothing here changes a mesh.
package operator
