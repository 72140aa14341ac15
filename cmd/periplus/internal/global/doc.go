// Package global is the commands of the global controller: making its keys, running a replica, and who belongs to it.
package global
