// Package dashboard is the page that any replica serves: regions, clusters, services and the traffic between regions,
// live, each number with its age. It is static files that ask the replica's read-only API; they need no build step,
// no network and nothing but a browser.
package dashboard
