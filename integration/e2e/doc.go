// Package e2e tests the mesh of 'periplus up' from outside: real processes, sockets, disks and certificates, under an
// open-loop load. TestMain builds the binary, starts one mesh and ends it; each test leaves it as it found it.
package e2e
