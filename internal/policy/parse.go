package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Limits of one input.
const (
	MaxBytes     = 1 << 20
	MaxDocuments = 500
	maxNodes     = 10_000
	maxDepth     = 64
)

// Parsed is one policy as it was read.
type Parsed struct {
	Kind            mesh.PolicyKind
	Namespace, Name string
	Clusters        []mesh.ClusterID
	Spec            mesh.PolicySpec
	Source          []byte // the document
}

// ScopeAnnotation confines a policy of the global API to some clusters, separated by commas.
const ScopeAnnotation = "periplus.io/clusters"

// kind is how one Kubernetes kind is read.
type kind struct {
	name     mesh.PolicyKind
	group    string
	versions []string // of the group's API, which all mean the same (Istio)
	message  func() proto.Message
	// supported are the paths of the fields that the mesh does, below spec; list and map steps are left out. A
	// path without children in the list stands for everything below it.
	supported []string
	// cures say what to do about a field that the mesh does not do.
	cures   map[string]string
	convert func(*document, proto.Message) mesh.PolicySpec
}

var kinds = []kind{destinationRule, virtualService, authorizationPolicy}

// Kinds that Parse accepts.
func Kinds() (out []string) {
	for _, k := range kinds {
		out = append(out, string(k.name))
	}
	return out
}

// Parse reads YAML or JSON, one or more documents. file names the input in errors.
func Parse(file string, data []byte) ([]Parsed, error) {
	if len(data) > MaxBytes {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: split it", file, len(data), MaxBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var out []Parsed
	var faults []error
	for {
		var root yaml.Node
		err := decode(decoder, &root)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(out) >= MaxDocuments {
			return nil, fmt.Errorf("%s: more than %d documents: split it", file, MaxDocuments)
		}
		if len(root.Content) == 0 || root.Content[0].Tag == "!!null" {
			continue
		}
		d := &document{file: file, root: root.Content[0]}
		parsed := d.parse()
		out, faults = append(out, parsed), append(faults, d.faults...)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no policy in it", file)
	}
	return out, duplicates(file, out)
}

// decode guards against what the YAML library itself cannot take: it panics on some malformed input.
func decode(decoder *yaml.Decoder, root *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not YAML: %v", r)
		}
	}()
	return decoder.Decode(root)
}

func duplicates(file string, all []Parsed) error {
	seen := map[mesh.Key]bool{}
	for _, p := range all {
		key := mesh.PolicyKey(p.Kind, p.Namespace, p.Name)
		if seen[key] {
			return fmt.Errorf("%s: %s %s/%s stands in it twice: keep one", file, p.Kind, p.Namespace, p.Name)
		}
		seen[key] = true
	}
	return nil
}

func (d *document) parse() (p Parsed) {
	if d.bounded(); len(d.faults) > 0 {
		return p
	}
	d.only("", "apiVersion", "kind", "metadata", "spec", "status")
	d.only("metadata", "name", "namespace", "labels", "annotations", "generation", "resourceVersion", "uid", "creationTimestamp", "managedFields")
	k, ok := d.kind()
	if !ok {
		return p
	}
	p = Parsed{Kind: k.name, Namespace: d.text("metadata.namespace"), Name: d.text("metadata.name")}
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	d.namespace = p.Namespace
	d.metadata(&p)
	p.Source = d.source()
	message := k.message()
	if spec := d.at("spec"); spec != nil {
		d.check(spec, message.ProtoReflect().Descriptor(), "spec", k)
		d.unmarshal(spec, message)
	}
	if len(d.faults) == 0 {
		p.Spec = k.convert(d, message)
	}
	return p
}

func (d *document) kind() (kind, bool) {
	name, apiVersion := d.text("kind"), d.text("apiVersion")
	group, version, _ := strings.Cut(apiVersion, "/")
	i := slices.IndexFunc(kinds, func(k kind) bool { return string(k.name) == name })
	switch {
	case i < 0:
		d.fault("kind", fmt.Sprintf("%q is not a kind that the mesh knows", name), "use one of "+strings.Join(Kinds(), ", "))
		return kind{}, false
	case kinds[i].group != group:
		d.fault("apiVersion", fmt.Sprintf("%q is not the group of %s", apiVersion, name), "use "+kinds[i].group+"/v1")
		return kind{}, false
	case !slices.Contains(kinds[i].versions, version):
		d.fault("apiVersion", fmt.Sprintf("%q is not a version of %s", apiVersion, name), "use "+kinds[i].group+"/v1")
		return kind{}, false
	}
	return kinds[i], true
}

// What Kubernetes accepts as the names of namespaces and of objects.
var (
	label     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
)

func (d *document) metadata(p *Parsed) {
	switch {
	case p.Name == "":
		d.fault("metadata.name", "missing", "give the policy a name")
	case !subdomain.MatchString(p.Name) || len(p.Name) > 253:
		d.fault("metadata.name", fmt.Sprintf("%q is not an RFC 1123 subdomain", p.Name), "use lower-case letters, digits, '-' and '.', at most 253")
	}
	if !label.MatchString(p.Namespace) {
		d.fault("metadata.namespace", fmt.Sprintf("%q is not an RFC 1123 label", p.Namespace), "use lower-case letters, digits and '-', at most 63")
	}
	scope := d.text("metadata.annotations." + escape(ScopeAnnotation))
	for name := range strings.SplitSeq(scope, ",") {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		id, err := mesh.ParseClusterID(name)
		if err != nil {
			d.fault("metadata.annotations", err.Error(), "list clusters separated by commas in "+ScopeAnnotation)
		}
		p.Clusters = append(p.Clusters, id)
	}
}

// unmarshal lets the real type read the spec. The JSON has each value on its line of the YAML, so that the
// library's errors name the right line.
func (d *document) unmarshal(spec *yaml.Node, message proto.Message) {
	if len(d.faults) > 0 {
		return
	}
	if err := protojson.Unmarshal(d.json(spec), message); err != nil {
		text := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\u00a0", " ")), " ")
		d.faults = append(d.faults, &Fault{File: d.file, Line: lineOf(text), Field: "spec", Problem: text, Cure: "see the reference of this kind"})
	}
}
