// Package csrf keeps web pages from using a browser to change a process on its machine.
//
// An admin interface on loopback asks nobody who they are: whoever reaches it may. A browser reaches it too, and a page
// from anywhere can have it send requests. [Protect] refuses those: requests that a page of another origin makes, and
// requests to a host name that is not localhost, which is how a page gets around the first rule when its own name is made
// to lead to 127.0.0.1 (DNS rebinding). Requests that change nothing (GET, HEAD, OPTIONS) pass, and so do those of
// programs, which know an address.
package csrf
