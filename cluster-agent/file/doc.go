// Package file is the source of services that people write by hand: one strict YAML file, watched.
//
//	apiVersion: periplus.io/v1
//	kind: Service
//	metadata: {name: catalog, namespace: shop}
//	spec:
//	  exported: true                 # other clusters may use this cluster's endpoints
//	  ports:
//	  - {name: http, port: 80, protocol: http}
//	---
//	apiVersion: periplus.io/v1
//	kind: Endpoints                  # static endpoints, for what announces itself to nobody
//	metadata: {name: catalog, namespace: shop}
//	spec:
//	  endpoints:
//	  - name: vm-1
//	    address: 10.0.0.7
//	    ports: {http: 8080}          # service port name -> port at address
//	    network: east                # default: the cluster's only network
//	    locality: eu-west/a          # default: the cluster's region; /a is zone a of it
//	    weight: 1
//	    health: healthy
//	    labels: {version: v1}
//	    identity: spiffe://eu-west.mesh/ns/shop/sa/catalog   # none: no mTLS, own network only
//
// The file is read whole once a second and compared: that works on every file system, through symbolic links that
// are swapped (as Kubernetes mounts do) and across editors that rename, which notification APIs do not; and one
// megabyte a second costs nothing. A change counts once it has been read twice, so half a write is not a change.
//
// A file that cannot be read or has an error changes nothing: the last good one stays in force, and the error says
// file, line, field and what to do. Nothing here writes to the mesh state; the caller's Apply does.
package file
