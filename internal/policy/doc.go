// Package policy reads the policies that people already have, in Istio's own kinds, and turns them into the mesh's.
//
// A document is read strictly: every field must be one that the kind has (the real Istio types decide), and one that
// the mesh does. What the mesh does not do is an error with file, line, field and cure; nothing is ever ignored.
// Each kind is one file: the fields it supports, as data, and its conversion. [Parse] never panics (fuzzed) and
// returns either every policy of the input or an error that names every fault.
package policy
