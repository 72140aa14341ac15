// Package workloadapi serves the X.509 half of the SPIFFE Workload API over a certificate authority.
//
//	connection -> the kernel says who it is -> entries whose selectors all hold -> SVIDs and bundles -> stream
//	next state, or time to renew -> again, and sent if it differs
//
// A process gets the SVIDs of the registration entries whose selectors all hold for it (unix:uid, unix:gid, unix:path)
// and no others; its keys are made for its stream, and are never on disk. JWT-SVIDs answer Unimplemented.
package workloadapi
