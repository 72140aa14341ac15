// Package periplus is the root of the module; it holds only the tests of the rules that every package keeps.
package periplus
