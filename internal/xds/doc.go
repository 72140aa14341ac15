// Package xds is the xDS transport protocol without I/O: sessions that turn requests into responses and back.
package xds
