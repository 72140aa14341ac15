// Package freeport finds an address for who binds it later, or again and again: tests and benchmarks.
//
// It knows of no one's use of it, and reserves nothing: who asks twice before binding may be told the same port, rarely.
package freeport
