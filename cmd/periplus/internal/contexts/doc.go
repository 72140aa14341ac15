// Package contexts is the commands about the contexts file: which meshes there are, and which one commands talk to.
package contexts
