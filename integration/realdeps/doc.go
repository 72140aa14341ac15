// Package realdeps starts the real components that Periplus meets: the Kubernetes API server, SPIRE, etcd, Envoy and
// Prometheus, each as a process at an address of its own.
//
// 'make realdeps' gets them once, into .cache/realdeps, keyed by version; a test that needs one that is not there is
// skipped, and says which. A component is ready when its Start function returns, is killed with its test, leaves
// nothing behind, and shows its log when the test failed.
package realdeps
