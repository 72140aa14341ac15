// Package ca is the certificate authority of one trust domain: its roots, their rotation, and everything that is kept
// with them on disk. It serves nothing; packages serverapi and workloadapi do.
//
//	Update: copy of the state -> change -> save -> publish
//	Run:    when a root is due, the same
//
// It guarantees: a new root is published long before it signs, and stays until it expired; nothing is signed by a root
// that was not published; the sequence number rises with every change of the own bundle, and only then; what Update
// returned without an error is on disk; a folder belongs to one trust domain for ever.
//
// A [State] is immutable once it is published. The entries, foreign bundles and relationships in it are the SPIRE API's
// own messages, checked by serverapi before they enter.
package ca
