package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// APIVersion is the only one there is.
const APIVersion = "periplus.io/v1"

// SliceName is the slice that holds a service's endpoints of the file. No sidecar may have a name that begins
// with an underscore, so the two never meet.
const SliceName = "_file"

type metadata struct {
	Name      string `yaml:"name"`
	Namespace string `yaml:"namespace"`
}

type document struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   metadata `yaml:"metadata"`
	Spec       struct {
		Exported  bool       `yaml:"exported,omitempty"`
		Ports     []port     `yaml:"ports,omitempty"`
		Endpoints []endpoint `yaml:"endpoints,omitempty"`
	} `yaml:"spec"`
}

type port struct {
	Name     string `yaml:"name"`
	Port     uint16 `yaml:"port"`
	Protocol string `yaml:"protocol"`
}

type endpoint struct {
	Name     string            `yaml:"name"`
	Address  string            `yaml:"address"`
	Ports    map[string]uint16 `yaml:"ports,omitempty"`
	Network  string            `yaml:"network,omitempty"`
	Locality string            `yaml:"locality,omitempty"`
	Weight   uint32            `yaml:"weight,omitempty"`
	Health   string            `yaml:"health,omitempty"`
	Labels   map[string]string `yaml:"labels,omitempty"`
	Identity string            `yaml:"identity,omitempty"`
}

// Parse reads a whole services file. name stands in errors only. It returns all objects or an error for each
// document that is wrong.
func Parse(name string, data []byte, cluster *mesh.Cluster) ([]mesh.Object, error) {
	return ParseSlice(name, data, cluster, SliceName)
}

// ParseSlice is Parse for documents that come from elsewhere: their endpoints make slices of that name.
func ParseSlice(name string, data []byte, cluster *mesh.Cluster, slice string) ([]mesh.Object, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: split the cluster's services", name, len(data), maxBytes)
	}
	p := parser{name: name, cluster: cluster, sliceName: slice, lines: map[mesh.Key]int{}}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return p.objects, errors.Join(p.errs...)
		}
		if err != nil {
			return nil, errors.Join(append(p.errs, fmt.Errorf("%s: %w", name, err))...)
		}
		p.document(&node)
	}
}

type parser struct {
	name    string
	cluster *mesh.Cluster
	// sliceName is what the endpoints' slices are called.
	sliceName string
	objects   []mesh.Object
	lines     map[mesh.Key]int // where each object was
	nodes     int
	errs      []error
}

func (p *parser) fail(line int, format string, args ...any) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %s", p.name, line, fmt.Sprintf(format, args...)))
	}
}

func (p *parser) document(node *yaml.Node) {
	if len(node.Content) != 1 || node.Content[0].Tag == "!!null" {
		return // nothing between two separators
	}
	root := node.Content[0]
	errors := len(p.errs)
	p.check(root, 0)
	if len(p.errs) > errors {
		return
	}
	p.fields(root, "", documentFields)
	if len(p.errs) > errors {
		return
	}
	var d document
	if err := root.Decode(&d); err != nil {
		p.fail(root.Line, "%v", err)
		return
	}
	object, err := p.object(&d)
	if err == nil {
		err = object.Validate()
	}
	if err != nil {
		p.fail(root.Line, "%s %q: %v", d.Kind, d.Metadata.Name, err)
		return
	}
	if line, twice := p.lines[object.Key()]; twice {
		p.fail(root.Line, "%s %s is in line %d already: keep one of the two", d.Kind, d.Metadata.Namespace+"/"+d.Metadata.Name, line)
		return
	}
	p.lines[object.Key()] = root.Line
	p.objects = append(p.objects, object)
}

func (p *parser) object(d *document) (mesh.Object, error) {
	if d.APIVersion != APIVersion {
		return nil, fmt.Errorf("apiVersion is %q: write %q", d.APIVersion, APIVersion)
	}
	if !p.cluster.AdmitsNamespace(d.Metadata.Namespace) {
		return nil, fmt.Errorf("metadata.namespace: cluster %q may not publish in %q, only in %q", p.cluster.ID, d.Metadata.Namespace, p.cluster.Namespaces)
	}
	service := mesh.ServiceName{Namespace: d.Metadata.Namespace, Name: d.Metadata.Name}
	switch d.Kind {
	case "Service":
		return p.service(service, d)
	case "Endpoints":
		return p.slice(service, d)
	}
	return nil, fmt.Errorf("kind is %q: write Service or Endpoints", d.Kind)
}

func (p *parser) service(name mesh.ServiceName, d *document) (mesh.Object, error) {
	if d.Spec.Endpoints != nil {
		return nil, fmt.Errorf("spec.endpoints: put endpoints into a document of kind Endpoints")
	}
	s := &mesh.Service{Name: name, Cluster: p.cluster.ID, Exported: d.Spec.Exported}
	for _, port := range d.Spec.Ports {
		s.Ports = append(s.Ports, mesh.ServicePort{Name: port.Name, Port: port.Port, Protocol: mesh.Protocol(port.Protocol)})
	}
	return s, nil
}

func (p *parser) slice(name mesh.ServiceName, d *document) (mesh.Object, error) {
	if d.Spec.Ports != nil || d.Spec.Exported {
		return nil, fmt.Errorf("spec: ports and exported belong into a document of kind Service")
	}
	s := &mesh.EndpointSlice{Service: name, Cluster: p.cluster.ID, Slice: p.sliceName}
	for i := range d.Spec.Endpoints {
		endpoint, err := p.endpoint(&d.Spec.Endpoints[i])
		if err != nil {
			return nil, fmt.Errorf("spec.endpoints[%d] %q: %w", i, d.Spec.Endpoints[i].Name, err)
		}
		s.Endpoints = append(s.Endpoints, endpoint)
	}
	return s, nil
}

func (p *parser) endpoint(e *endpoint) (out mesh.Endpoint, err error) {
	out = mesh.Endpoint{
		Name: e.Name, Ports: e.Ports, Network: mesh.Network(e.Network), Locality: mesh.Locality{Region: p.cluster.Region},
		Health: mesh.Health(e.Health), Weight: max(e.Weight, 1), Labels: e.Labels,
	}
	if out.Address, err = netip.ParseAddr(e.Address); err != nil {
		return out, fmt.Errorf("address: %w", err)
	}
	if e.Network == "" && len(p.cluster.Networks) == 1 {
		out.Network = p.cluster.Networks[0].Name
	}
	if e.Locality != "" {
		if out.Locality, err = mesh.ParseLocality(p.locality(e.Locality)); err != nil {
			return out, err
		}
	}
	if e.Health == "" {
		out.Health = mesh.Healthy
	}
	if out.Identity, err = p.identity(e.Identity); err != nil {
		return out, fmt.Errorf("identity: %w", err)
	}
	return out, p.cluster.Admits(out.Network, out.Address)
}

// locality fills in the cluster's region where a zone follows a slash.
func (p *parser) locality(text string) string {
	if strings.HasPrefix(text, "/") {
		return p.cluster.Region + text
	}
	return text
}

func (p *parser) identity(text string) (spiffeid.ID, error) {
	if text == "" {
		return spiffeid.ID{}, nil
	}
	id, err := spiffeid.FromString(text)
	if err == nil && id.TrustDomain() != p.cluster.TrustDomain {
		err = fmt.Errorf("%q is not in the cluster's trust domain %q", text, p.cluster.TrustDomain.Name())
	}
	return id, err
}
