// Package translate turns (Snapshot, View) into assignments with reasons and into Envoy resources.
package translate
