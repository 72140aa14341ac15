// Package feed is what an agent may know of the mesh beyond its own cluster: mesh objects, named by their keys.
//
// An agent gets every cluster, every trust bundle, the policies that apply to it, and of other clusters the gateways,
// the exported services and their endpoints: addresses only in networks that its own cluster has, counts
// ([mesh.Summary]) for the others, so that churn elsewhere does not reach it unless the counts change. It never gets
// tokens, cursors, the history, or what its own cluster said itself.
//
// All is pure. Results are kept in the snapshot and shared by all agents that get the same; applying Changed step by
// step gives what reading everything gives, and a property test holds it.
package feed
