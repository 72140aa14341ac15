// Package telemetry turns finished exchanges into metrics, access log lines and load reports.
//
// [Telemetry] is a record.Observer. Metrics carry the names and labels of Istio's standard metrics, and the handle of
// each combination of labels is looked up once and then held, so that an exchange costs one map look-up. The access
// log is written by one goroutine from a bounded buffer: a slow disk costs lines, which are counted, and never a
// request. Load reports go to the control plane by Envoy's LRS.
//
// Telemetry fails open: nothing here can delay or fail an exchange.
//
//	Observe -> handles (metrics), buffer (access log), counters (load) -> Run: flush; Report: every interval asked for
package telemetry
