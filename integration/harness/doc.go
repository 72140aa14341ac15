// Package harness starts Periplus's own processes one by one, at addresses below one loopback prefix: controllers,
// agents, sidecars and gateways, each a real process with real certificates. The tests of 'periplus up' use that
// command instead; this is for meshes that 'up' does not make, with Kubernetes, SPIRE, etcd or Envoy in them.
//
// Everything is killed with its test and shows its log when the test failed.
package harness
