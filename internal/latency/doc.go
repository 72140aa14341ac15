// Package latency holds the bounds of the latency buckets that proxies count in, agents add up and controllers read.
//
// The bounds are the same everywhere, so histograms add by adding counts and a mesh-wide p99 needs no raw data.
// Bounds grow by 20 % from 100 us to 60 s, so a quantile is off by at most a tenth or so of its value.
package latency
