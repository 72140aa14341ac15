// Package envoy shows with a real Envoy that it can take the place of the mesh's own sidecars and gateways: that it
// accepts everything that the translation can make (as the mesh's own proxy does), that it gets its whole configuration
// by xDS and its identity from SPIRE, and that requests pass between both kinds of proxy in every combination.
package envoy
