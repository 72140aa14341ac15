// Package credential is the agent's identity towards the controllers: how it is obtained, kept and renewed.
//
//	first start   join token -> TLS to a controller, pinned by the hash of the root -> Register -> disk
//	later starts  disk; no token is needed, and one that is used up does no harm
//	half life     Rotate over the credential that still holds -> disk -> in force for new connections
//
// A [Credential] is a trust.Source: TLS configurations read it at each handshake, so a rotation interrupts nothing.
// The file is replaced atomically and readable by its owner only. The private key never leaves the process and the
// file; a new one is drawn for each rotation. It never trusts a controller that the token, or later the stored
// bundle, does not vouch for.
package credential
