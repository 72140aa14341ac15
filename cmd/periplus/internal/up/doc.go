// Package up is the commands that run a whole mesh on this machine and break it: a thin layer over internal/up.
package up
