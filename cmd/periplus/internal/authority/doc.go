// Package authority is the command that runs the embedded stand-in for SPIRE.
package authority
