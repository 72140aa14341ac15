// Package kube tests the agent against real Kubernetes API servers, with kubectl as its users' hands and real sidecars
// behind the endpoints. The API server admits no loopback address as an endpoint, so the tests run in a network
// namespace of their own, in which they may give themselves others.
package kube
