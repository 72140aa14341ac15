// Package pki is the control plane's own certificate authority.
//
// One root, used by people at set-up time only ([Init], [AddReplica], [AddOperator]); one intermediate for each
// replica of the global controller, held by that replica. From it a replica issues its own short-lived SVID and the
// credentials of agents. A replica never needs the root's key, so it can be kept off-line.
//
//	DIR/root.crt, root.key            the root; keep the key off-line
//	DIR/<replica>/{ca.crt,ca.key,root.crt}   what a replica is given
//	DIR/operators/<name>.{crt,key}    client certificates of people and pipelines, and root.crt
//
// An intermediate can sign anything of the trust domain. So that a replica speaks for itself alone, and a removed one for
// nobody, package peer looks at [Authority] too: a controller's SVID is of its own intermediate, an operator's certificate
// of none.
//
// Who a certificate is for stands in its one URI name (X.509-SVID); the generation of an agent's credential is the
// decimal Subject.SerialNumber of its leaf. Keys are ECDSA P-256, files with keys are 0600.
package pki
