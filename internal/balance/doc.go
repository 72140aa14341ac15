// Package balance chooses the host of a request as Envoy does: priority, then locality, then host.
//
// A [Set] is one version of an Envoy cluster's endpoints. It is immutable but for the health of its hosts; what is
// known of a host (active requests, ejection, active health) belongs to its address and outlives the Set. [Set.Pick]
// reads an immutable plan through one atomic pointer: it takes no lock and allocates nothing. The plan is made anew
// only when the health of a host changes.
//
//	set = balance.NewSet(spec, set)          // each EDS update; one writer
//	host, err := set.Pick(balance.Request{}) // each request; any goroutine
//	host.Begin()
//	...
//	host.End()
//	set.Report(host, balance.Success, now)   // feeds outlier detection
//	set.Tick(now)                            // every Spec.Outlier.Interval
//
// The package never reads a clock, dials nothing and starts no goroutine.
//
// It follows Envoy (docs: priority.rst, panic_threshold.rst, locality_weight.rst, outlier.rst) except that
//   - with unequal weights LEAST_REQUEST samples two hosts by weight and takes the one with fewer active requests
//     per weight, where Envoy runs an EDF schedule on weight/(active+1): same shares when idle, no lock;
//   - two random choices are two different hosts;
//   - Spec.WeightedHealth also applies to locality weights and to the panic threshold: one gateway that stands for
//     100 endpoints must count as 100;
//   - success rate and failure percentage ejection do not exist; what they would say, a translation must refuse.
package balance
