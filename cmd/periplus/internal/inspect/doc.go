// Package inspect is the commands that look at a running mesh and change nothing: where requests go and why, the
// services, the trust between clusters, and where the dashboard is.
package inspect
