// Package field reads the fields of Envoy's messages, and remembers the first that cannot be done as asked.
//
// [Problems] knows where in a resource it is, so that a refusal names the field by its path; what is read after the first
// problem does not matter. What a field says and the proxy does not do is refused, never ignored.
package field
