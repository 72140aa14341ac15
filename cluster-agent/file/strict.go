package file

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a file.
const (
	maxBytes  = 1 << 20
	maxNodes  = 200_000 // a megabyte of the smallest endpoints
	maxDepth  = 64
	maxErrors = 10
)

// fields is the schema: field name -> what may be within. "*" stands for any name; nil for a value. Lists are
// looked through.
type fields map[string]fields

var anyName = fields{"*": nil}

// documentFields is data; nothing writes it.
var documentFields = fields{
	"apiVersion": nil,
	"kind":       nil,
	"metadata":   {"name": nil, "namespace": nil},
	"spec": {
		"exported": nil,
		"ports":    {"name": nil, "port": nil, "protocol": nil},
		"endpoints": {
			"name": nil, "address": nil, "ports": anyName, "network": nil, "locality": nil, "weight": nil,
			"health": nil, "labels": anyName, "identity": nil,
		},
	},
}

// check refuses what YAML can say and a services file must not: aliases, merges, deep nests, keys said twice.
func (p *parser) check(node *yaml.Node, depth int) {
	p.nodes++
	switch {
	case p.nodes > maxNodes:
		if p.nodes == maxNodes+1 {
			p.fail(node.Line, "more than %d values: split the cluster's services", maxNodes)
		}
		return
	case depth > maxDepth:
		p.fail(node.Line, "nested deeper than %d", maxDepth)
		return
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		p.fail(node.Line, "anchors and aliases are not allowed: write the value out")
		return
	}
	if node.Kind == yaml.MappingNode {
		p.checkKeys(node)
	}
	for _, child := range node.Content {
		p.check(child, depth+1)
	}
}

func (p *parser) checkKeys(node *yaml.Node) {
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		if key.Kind != yaml.ScalarNode {
			p.fail(key.Line, "a field's name must be plain text")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			p.fail(key.Line, "%s is in line %d already: keep one of the two", key.Value, line)
		}
		seen[key.Value] = key.Line
	}
}

// fields refuses every field that the schema does not have, and says which it has.
func (p *parser) fields(node *yaml.Node, path string, schema fields) {
	switch {
	case schema == nil:
		if node.Kind != yaml.ScalarNode {
			p.fail(node.Line, "%s: want one value", path)
		}
	case node.Kind == yaml.SequenceNode:
		for _, child := range node.Content {
			p.fields(child, path, schema)
		}
	case node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			p.field(node.Content[i], node.Content[i+1], path, schema)
		}
	case node.Tag != "!!null":
		p.fail(node.Line, "%s: want fields, one of %s", path, known(schema))
	}
}

func (p *parser) field(key, value *yaml.Node, path string, schema fields) {
	within, ok := schema[key.Value]
	if !ok {
		within, ok = schema["*"]
	}
	at := strings.TrimPrefix(path+"."+key.Value, ".")
	if !ok {
		p.fail(key.Line, "field %s is not known: want one of %s", at, known(schema))
		return
	}
	p.fields(value, at, within)
}

func known(schema fields) string { return strings.Join(slices.Sorted(maps.Keys(schema)), ", ") }
