// Package health asks endpoints whether they are well: Envoy's active health checking.
//
// One goroutine per endpoint of a cluster with health checks. An endpoint counts as failing until its first check
// passes; then HealthyThreshold passes or UnhealthyThreshold failures in a row turn its state, and a wrong HTTP
// status turns it at once (HealthCheck.unhealthy_threshold). Endpoints that a new configuration keeps keep their
// state; those that it drops are forgotten.
//
//	config changed -> start and stop checkers -> each: wait, dial, ask, count, Report
package health
