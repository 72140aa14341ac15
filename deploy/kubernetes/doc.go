// Package kubernetes is what a Kubernetes cluster needs to join the mesh, as manifests: it is what 'periplus cluster
// register NAME --kubernetes -o yaml' prints. The files are templates of text/template; every value goes through
// quote, so that none can break out of its place.
package kubernetes
