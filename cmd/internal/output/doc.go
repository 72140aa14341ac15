// Package output is the flag -o of commands: how to print. A format that a command does not have is wrong usage, and
// is found before the command has done anything.
package output
