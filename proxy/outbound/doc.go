// Package outbound accepts the application's own connections: HTTP/1.1, HTTP/2 with prior knowledge, or TCP, as the
// listener says, and hands them to package forward.
package outbound
