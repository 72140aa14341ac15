// Package state is the copy on disk of what the agent knows of its own cluster, so that an agent that restarts, with
// or without controllers, withdraws nothing.
//
//	store changes -> at most once a second -> encode -> checksum -> write beside -> sync -> rename
//
// Two generations are kept: the newest, and the one before. A file is whole or it is refused: magic, cluster, length
// and SHA-256 must fit, and then the other generation is tried. Files are readable by their owner only, symbolic
// links are not followed. What was followed from other clusters is kept by the xDS client, with its versions; each
// object is on disk once.
package state
