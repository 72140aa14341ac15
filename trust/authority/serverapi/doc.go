// Package serverapi serves the SPIRE server API (entry, bundle, trustdomain and localauthority, all v1) over a
// certificate authority, as SPIRE does: with its masks, filters, pages, status codes and defaults.
//
//	call -> what may not be is refused -> ca.Authority.Update -> answer, through the call's mask
//
// Of a batch each item has an outcome of its own. What SPIRE has beyond that answers Unimplemented: node attestation,
// JWT keys, polling of bundle endpoints. Whoever can call it is an administrator: the socket's mode decides.
package serverapi
