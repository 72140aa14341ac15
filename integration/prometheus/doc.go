// Package prometheus scrapes every component of a running mesh with a real Prometheus: all targets are up, the series
// that operators live by are there and say what happened, promtool finds nothing to complain of, every metric is
// described in docs/observability.md, and the alerts of deploy/prometheus use metrics that exist.
package prometheus
