// Package upstream decodes who is asked and how: Envoy's clusters with their balancing, limits, outlier detection and
// health checks, and the endpoints of each.
//
// Pure: equal resources give equal values. Envoy's defaults are filled in here, so that inner code has none.
package upstream
