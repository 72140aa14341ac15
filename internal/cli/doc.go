// Package cli is what every command that talks to a running mesh shares: which mesh (contexts, in the shape of a
// kubeconfig), how to reach it (any replica, operator certificate), how to print (table, wide, json, yaml, name)
// and which exit code an error means.
//
// It knows no command and no flag but its own.
package cli
