// Package svid is the command that gets the identity of a process from the SPIFFE Workload API, for programs that read
// files.
package svid
