// Package route decides by configuration alone what is to be done with a request: which route it matches, which
// cluster that leads to, how its head changes, whether an outcome is worth another attempt.
//
// [Compile] turns one immutable config.RouteTable into a [Table] that is safe for concurrent use. Everything here is
// pure: no clock, no random numbers, no network; equal input, equal output. It is shared by HTTP/1.1 and HTTP/2.
//
//	route := table.Match(&request) -> destination := route.Choose(random) -> cluster
package route
