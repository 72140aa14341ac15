// Package load adds up what the cluster's proxies report of their traffic: Envoy's load reporting service (LRS,
// envoy.service.load_stats.v3), and one row for each service and pair of localities.
//
//	proxy: LoadStatsRequest every Interval -> Aggregator.Add -> Aggregator.Take -> the agent's report
//
// A proxy is asked for all of its clusters. Latency comes as load_metric_stats named latency_bucket_<index> (bounds:
// package latency). Everything here is telemetry: a row too many, a name that is none, a report nobody fetches is
// dropped and counted, and nothing waits.
package load
