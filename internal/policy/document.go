package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Fault is one thing that is wrong, where it is and what to do.
type Fault struct {
	File                 string
	Line                 int // 1 is the first; 0: unknown
	Field, Problem, Cure string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("%s:%d: %s: %s (%s)", f.File, f.Line, f.Field, f.Problem, f.Cure)
}

type document struct {
	file      string
	root      *yaml.Node
	namespace string
	faults    []error
}

func (d *document) fault(path, problem, cure string) {
	line := d.root.Line
	for p := path; p != ""; p = parent(p) {
		if node := d.at(p); node != nil {
			line = node.Line
			break
		}
	}
	d.faultAt(line, path, problem, cure)
}

func (d *document) faultAt(line int, path, problem, cure string) {
	d.faults = append(d.faults, &Fault{File: d.file, Line: line, Field: path, Problem: problem, Cure: cure})
}

func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	return path[:max(i, 0)]
}

// bounded refuses what a policy never needs and an attacker does: aliases, depth, size, keys given twice.
func (d *document) bounded() {
	nodes := 0
	var walk func(n *yaml.Node, depth int) bool
	walk = func(n *yaml.Node, depth int) bool {
		nodes++
		switch {
		case n.Kind == yaml.AliasNode || n.Anchor != "":
			d.faultAt(n.Line, "document", "anchors and aliases are not accepted", "write the value out")
			return false
		case depth > maxDepth || nodes > maxNodes:
			d.faultAt(n.Line, "document", fmt.Sprintf("more than %d levels or %d values", maxDepth, maxNodes), "split the policy")
			return false
		}
		if n.Kind == yaml.MappingNode && !d.uniqueKeys(n) {
			return false
		}
		return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !walk(c, depth+1) })
	}
	if walk(d.root, 0) && d.root.Kind != yaml.MappingNode {
		d.faultAt(d.root.Line, "document", "is not a mapping", "begin with apiVersion, kind, metadata, spec")
	}
}

func (d *document) uniqueKeys(n *yaml.Node) bool {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] || key.Kind != yaml.ScalarNode {
			d.faultAt(key.Line, key.Value, "key given twice, or not a plain text", "keep one")
			return false
		}
		seen[key.Value] = true
	}
	return true
}

// escape protects the dots of a key in a path.
func escape(key string) string { return strings.ReplaceAll(key, ".", "\x00") }

var step = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// at returns the node at a path such as spec.http[0].match, or nil.
func (d *document) at(path string) *yaml.Node {
	n := d.root
	for _, s := range step.FindAllString(path, -1) {
		if n = descend(n, strings.ReplaceAll(s, "\x00", ".")); n == nil {
			return nil
		}
	}
	return n
}

func descend(n *yaml.Node, step string) *yaml.Node {
	if index, ok := strings.CutPrefix(step, "["); ok {
		i, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
		if err != nil || n.Kind != yaml.SequenceNode || i >= len(n.Content) {
			return nil
		}
		return n.Content[i]
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == step {
			return n.Content[i+1]
		}
	}
	return nil
}

func (d *document) text(path string) string {
	n := d.at(path)
	switch {
	case n == nil:
		return ""
	case n.Kind != yaml.ScalarNode:
		d.fault(path, "is not a text", "write one value")
		return ""
	}
	return n.Value
}

// only refuses keys of the mapping at path that are none of names.
func (d *document) only(path string, names ...string) {
	n := d.root
	if path != "" {
		n = d.at(path)
	}
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if key := n.Content[i]; !slices.Contains(names, key.Value) {
			d.faultAt(key.Line, strings.TrimPrefix(path+"."+key.Value, "."), "unknown field", "one of "+strings.Join(names, ", "))
		}
	}
}

// check walks the spec beside its type: every key must be a field of the type, and one that the mesh does.
func (d *document) check(n *yaml.Node, m protoreflect.MessageDescriptor, path string, k kind) {
	if n.Kind != yaml.MappingNode || wellKnown(m) {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field := m.Fields().ByJSONName(key.Value)
		if field == nil {
			field = m.Fields().ByTextName(key.Value)
		}
		at := path + "." + key.Value
		if field == nil {
			d.faultAt(key.Line, at, "unknown field", "one of "+strings.Join(fieldNames(m), ", "))
			continue
		}
		if !d.supported(key, field, at, k) {
			continue
		}
		d.checkValue(value, field, at, k)
	}
}

func wellKnown(m protoreflect.MessageDescriptor) bool {
	return strings.HasPrefix(string(m.FullName()), "google.protobuf.")
}

func (d *document) checkValue(n *yaml.Node, field protoreflect.FieldDescriptor, path string, k kind) {
	switch {
	case !field.IsList() && !field.IsMap() && field.Message() != nil && field.Message().FullName() == "google.protobuf.Duration":
		canonicalDuration(n)
	case field.IsMap():
		if value := field.MapValue().Message(); value != nil {
			for i := 1; i < len(n.Content); i += 2 {
				d.check(n.Content[i], value, path+"."+escape(n.Content[i-1].Value), k)
			}
		}
	case field.Message() == nil:
	case field.IsList():
		for i, element := range n.Content {
			d.check(element, field.Message(), fmt.Sprintf("%s[%d]", path, i), k)
		}
	default:
		d.check(n, field.Message(), path, k)
	}
}

// canonicalDuration writes what people write, such as 300ms or 1m30s, in the one form that protobuf's JSON has. What
// is no duration stays, for the real type to refuse.
func canonicalDuration(n *yaml.Node) {
	if v, err := time.ParseDuration(n.Value); err == nil && n.Kind == yaml.ScalarNode {
		n.Value, n.Tag = strconv.FormatFloat(v.Seconds(), 'f', 9, 64)+"s", "!!str"
	}
}

func (d *document) supported(key *yaml.Node, field protoreflect.FieldDescriptor, at string, k kind) bool {
	path := plain(at, field)
	for _, s := range k.supported {
		if s == path || strings.HasPrefix(s, path+".") || strings.HasPrefix(path, s+".") && !hasChildren(k.supported, s) {
			return true
		}
	}
	cure := k.cures[field.JSONName()]
	if cure == "" {
		cure = "remove it; the mesh does not do it yet"
	}
	d.faultAt(key.Line, strings.ReplaceAll(at, "\x00", "."), "not supported", cure)
	return false
}

func hasChildren(all []string, path string) bool {
	return slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, path+".") })
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// plain is a path as in kind.supported: below spec, no list indexes, the field by its JSON name.
func plain(at string, field protoreflect.FieldDescriptor) string {
	at = indexes.ReplaceAllString(strings.TrimPrefix(at, "spec."), "")
	if i := strings.LastIndexByte(at, '.'); i >= 0 {
		return at[:i+1] + field.JSONName()
	}
	return field.JSONName()
}

func fieldNames(m protoreflect.MessageDescriptor) (out []string) {
	for i := range m.Fields().Len() {
		out = append(out, m.Fields().Get(i).JSONName())
	}
	return out
}

// json renders a node as JSON in which every scalar stands on the line it has in the YAML.
func (d *document) json(n *yaml.Node) []byte {
	w := jsonWriter{line: 1}
	w.node(n)
	return w.Bytes()
}

type jsonWriter struct {
	bytes.Buffer
	line int
}

func (w *jsonWriter) moveTo(line int) {
	for ; w.line < line; w.line++ {
		w.WriteByte('\n')
	}
}

func (w *jsonWriter) node(n *yaml.Node) {
	w.moveTo(n.Line)
	switch n.Kind {
	case yaml.MappingNode:
		w.list('{', '}', len(n.Content)/2, func(i int) {
			w.moveTo(n.Content[2*i].Line)
			w.quoted(n.Content[2*i].Value)
			w.WriteByte(':')
			w.node(n.Content[2*i+1])
		})
	case yaml.SequenceNode:
		w.list('[', ']', len(n.Content), func(i int) { w.node(n.Content[i]) })
	default:
		w.scalar(n)
	}
}

func (w *jsonWriter) list(open, end byte, n int, element func(int)) {
	w.WriteByte(open)
	for i := range n {
		if i > 0 {
			w.WriteByte(',')
		}
		element(i)
	}
	w.WriteByte(end)
}

func (w *jsonWriter) scalar(n *yaml.Node) {
	var v any
	switch n.Tag {
	case "!!int", "!!float", "!!bool", "!!null":
		if n.Decode(&v) == nil {
			if text, err := json.Marshal(v); err == nil {
				w.Write(text)
				return
			}
		}
	}
	w.quoted(n.Value)
}

func (w *jsonWriter) quoted(s string) {
	text, _ := json.Marshal(s) // a string always marshals
	w.Write(text)
}

var lineInError = regexp.MustCompile(`\(line (\d+):\d+\)`)

func lineOf(text string) int {
	if m := lineInError.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 0
}

// source is the document alone, as it was given but for its indentation.
func (d *document) source() []byte {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(d.root); err != nil {
		d.fault("", err.Error(), "write it as plain YAML")
	}
	return b.Bytes()
}

// host reads the name of a service: short names are in the policy's own namespace, as in Istio.
func (d *document) host(path, host string) (n mesh.ServiceName) {
	name := host
	if name != "" && !strings.Contains(name, ".") {
		name += "." + d.namespace
	}
	n, err := mesh.ParseServiceName(name)
	if err != nil {
		d.fault(path, fmt.Sprintf("%q is not a service of the mesh", host), "write NAME, NAME.NAMESPACE or NAME.NAMESPACE.svc.cluster.local")
	}
	return n
}
