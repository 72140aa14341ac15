// Package upstream keeps the connections to hosts that package http2 sends requests on: HTTP/2 or HTTP/1.1 by net/http, over
// what the cluster dials.
//
// A connection belongs to an address under one version of its cluster's settings. Of the requests that find none with
// room, one dials and the others wait for what comes of it. What is broken, idle for too long, used up or no longer
// configured is closed by [Pools.Sweep], once nothing runs on it.
//
// It never chooses a host, never retries and never looks into a request.
package upstream
