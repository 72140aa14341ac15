// Package cluster is the commands that register clusters and steer them, over the admin API. 'register' prints a join
// token, or with --kubernetes the manifests of the agent with the token in them. Nothing is registered if what was
// asked for cannot be printed.
package cluster
