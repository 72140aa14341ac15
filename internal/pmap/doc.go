// Package pmap is a persistent ordered map: every change makes a new version and leaves the old one as it
// was, and the difference of two versions is found in time proportional to what differs.
//
// It is a treap whose priorities are a hash of the key. Equal contents therefore have equal shape however
// they came about, and two versions of one map share every subtree that no change touched; [Map.Diff] skips
// what is shared by comparing pointers.
//
// Values are compared by identity (==): V is meant to be a pointer or an interface holding one.
package pmap
