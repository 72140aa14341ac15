// Package shares says how Envoy spreads requests over an assignment: by priority, locality weight, health and panic, with
// Envoy's integer arithmetic. "explain" prints it; no proxy is told of it, for each computes it by itself.
//
//	translate.Assignment -> [Of] -> a share for each level and endpoint
//
// Verified by Envoy's own vectors (priority.rst, locality_weight.rst) and against a real Envoy in integration/oracle.
package shares
