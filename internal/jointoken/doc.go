// Package jointoken is the format of a join token: what the operator carries from the global controller to a new
// cluster's agent.
//
// A token is the text "periplus-join-v1." and the base64url of a JSON object. It holds a secret of 256 bits, which
// the controllers know by its SHA-256 only, and what the agent needs to know whom it talks to before it has any
// credential: addresses and the hash of the control plane's root. [Parse] never panics on what people paste (fuzzed).
package jointoken
