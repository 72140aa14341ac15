// Package envoy is the commands for stock Envoys as sidecars and gateways: their bootstrap, and announcing them to the
// agent of their cluster, which an Envoy cannot do itself.
package envoy
