// Package durable writes files so that a crash, at whatever moment, leaves the old content or the new.
//
//	data -> file beside it -> fsync -> rename -> fsync of the folder
//
// It knows nothing of what is in the files, and keeps no generations: a file that was damaged later is its owner's to notice.
package durable
