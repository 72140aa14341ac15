// Package registry lets clusters in: join tokens, the agents' credentials and their rotation.
//
// [Registry.Issue] makes (or finds) a cluster and a single-use token for it; only the token's SHA-256 is stored. An
// agent trades the token for a credential once: the used mark is a compare-and-swap in raft, so of any number of
// attempts on any replicas exactly one succeeds. Everybody else is told which it was: unknown, used, expired or
// foreign. An agent that did not hear the answer asks again, with the key that it had: the token remembers it, for as long as
// it would have lived. From then on the agent rotates by [Registry.Rotate] with the credential that it has.
//
//	operator -> Issue -> token file -> agent -> Register (once) -> Rotate, Rotate, ...
//
// A cluster's CredentialGeneration is that of the credentials now issued; those of the one before are still good, so
// that rotation needs no hurry. Revoking skips a generation: every credential out there is refused at once, and the
// agent needs a new token.
package registry
