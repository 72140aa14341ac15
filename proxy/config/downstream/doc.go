// Package downstream decodes what is done with a connection and its requests: Envoy's listeners with their filter chains,
// HTTP connection managers, TCP proxies and RBAC rules, and route configurations.
//
// Pure: equal resources give equal values. Every list and tree is bounded.
package downstream
