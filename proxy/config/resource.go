package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// Update is a change of resources of one type.
type Update struct {
	Type    xds.Type
	Upserts []Resource
	Removed []string
}

// Resource is one resource as it came.
type Resource struct {
	Name    string
	Version string
	Body    []byte // the marshalled message, without its Any; not modified, and kept for whoever asks what is in force
	// Updated is when it came.
	Updated time.Time
}

// Refusal is why one resource was not taken in.
type Refusal struct {
	Type xds.Type
	Name string
	Err  error
}

func (r Refusal) Error() string { return fmt.Sprintf("%s %q: %v", short(r.Type), r.Name, r.Err) }
func (r Refusal) Unwrap() error { return r.Err }

// Refused is the resource's name.
func (r Refusal) Refused() string { return r.Name }

// short is the last part of a type URL: "Cluster".
func short(t xds.Type) string { return string(t[strings.LastIndexByte(string(t), '.')+1:]) }
