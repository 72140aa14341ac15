// Package csrf keeps web pages from using a browser to change, or to read, a process on its machine.
//
// An admin interface on loopback asks nobody who they are: whoever reaches it may. A browser reaches it too, and a page
// from anywhere can have it send requests. [Protect] refuses those that change something: requests that a page of another
// origin makes, and requests to a host name that is not localhost, which is how a page gets around the first rule when its own
// name is made to lead to 127.0.0.1 (DNS rebinding). [Loopback], which is part of it, refuses such names over loopback to
// those that only read, too. Programs know an address, and pass.
package csrf
