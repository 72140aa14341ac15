package etcd

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/file"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Folder is what kind of record a key has.
type Folder string

// The folders of a cluster.
const (
	Services  Folder = "services"
	Endpoints Folder = "endpoints"
	Sidecars  Folder = "sidecars"
)

// Name is the place of a record below its cluster's.
type Name struct {
	Folder   Folder
	Service  mesh.ServiceName
	Workload string // "" in folder Services
}

// Root is the key below which a cluster's records are; it ends with a slash.
func Root(prefix string, cluster mesh.ClusterID) string {
	return strings.TrimSuffix(prefix, "/") + "/" + string(cluster) + "/"
}

// Path is the key of n, below Root.
func (n Name) Path() string {
	path := string(n.Folder) + "/" + n.Service.Namespace + "/" + n.Service.Name
	if n.Folder != Services {
		path += "/" + n.Workload
	}
	return path
}

// ParseName reads a key without its Root.
func ParseName(path string) (Name, error) {
	parts := strings.Split(path, "/")
	n := Name{Folder: Folder(parts[0])}
	want := 4
	switch n.Folder {
	case Services:
		want = 3
	case Endpoints, Sidecars:
	default:
		return n, fmt.Errorf("folder %q is none of %s, %s, %s", n.Folder, Services, Endpoints, Sidecars)
	}
	if len(parts) != want {
		return n, fmt.Errorf("want services/NAMESPACE/NAME or %s/NAMESPACE/SERVICE/WORKLOAD", Endpoints)
	}
	var err error
	if n.Service, err = mesh.ParseServiceName(parts[2] + "." + parts[1]); err != nil {
		return n, err
	}
	if want == 4 {
		n.Workload = parts[3]
	}
	if want == 4 && (n.Workload == "" || strings.HasPrefix(n.Workload, "_")) {
		return n, fmt.Errorf("workload %q: want a name that does not begin with an underscore", n.Workload)
	}
	if n.Path() != path {
		return n, fmt.Errorf("service %q.%q is not a name", parts[2], parts[1])
	}
	return n, nil
}

// Record is a value that was understood.
type Record struct {
	// Service is the service, or what a workload says of it; nil: nothing.
	Service *mesh.Service
	// Slice has the workload alone, and its name; nil in folder Services.
	Slice *mesh.EndpointSlice
}

// maxValue bounds a value: one workload needs far less, and the parser is not given more.
const maxValue = 64 << 10

// ParseRecord reads the value at name. It returns an error if it says something of anything else.
func ParseRecord(name Name, value []byte, cluster *mesh.Cluster) (r Record, err error) {
	if len(value) > maxValue {
		return r, fmt.Errorf("%d bytes, at most %d", len(value), maxValue)
	}
	objects, err := file.ParseSlice(name.Path(), value, cluster, cmp.Or(name.Workload, file.SliceName))
	if err != nil {
		return r, err
	}
	for _, object := range objects {
		if r, err = r.with(name, object); err != nil {
			return Record{}, err
		}
	}
	if name.Folder == Services && r.Service == nil {
		return Record{}, fmt.Errorf("want a document of kind Service")
	}
	if name.Folder != Services && r.Slice == nil {
		return Record{}, fmt.Errorf("want a document of kind Endpoints")
	}
	return r, nil
}

func (r Record) with(name Name, object mesh.Object) (Record, error) {
	var of mesh.ServiceName
	switch o := object.(type) {
	case *mesh.Service:
		r.Service, of = o, o.Name
	case *mesh.EndpointSlice:
		r.Slice, of = o, o.Service
		if name.Folder == Services {
			return r, fmt.Errorf("endpoints do not belong below %s", Services)
		}
		if len(o.Endpoints) != 1 || o.Endpoints[0].Name != name.Workload {
			return r, fmt.Errorf("want one endpoint, with the key's name %q", name.Workload)
		}
	}
	if of != name.Service {
		return r, fmt.Errorf("it says something of service %q, but its key is of %q", of, name.Service)
	}
	return r, nil
}

// Format is the value that ParseRecord reads.
func (r Record) Format() ([]byte, error) {
	var objects []mesh.Object
	if r.Service != nil {
		objects = append(objects, r.Service)
	}
	if r.Slice != nil {
		objects = append(objects, r.Slice)
	}
	return file.Format(objects...)
}

// unhealthy is r of a workload that nobody shall pick.
func (r Record) unhealthy() Record {
	slice := *r.Slice
	slice.Endpoints = []mesh.Endpoint{r.Slice.Endpoints[0]}
	slice.Endpoints[0].Health = mesh.Unhealthy
	r.Slice = &slice
	return r
}

// WithHealth is a workload's value with another health, and everything else as it is written: what it leaves to the
// cluster's registration is not filled in.
func WithHealth(value []byte, health mesh.Health) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	decoder := yaml.NewDecoder(bytes.NewReader(value))
	for {
		var document map[string]any
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			return out.Bytes(), encoder.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("health: %w", err)
		}
		if document == nil {
			continue // nothing between two separators
		}
		spec, _ := document["spec"].(map[string]any)
		endpoints, _ := spec["endpoints"].([]any)
		for _, endpoint := range endpoints {
			if fields, ok := endpoint.(map[string]any); ok {
				fields["health"] = string(health)
			}
		}
		if err := encoder.Encode(document); err != nil {
			return nil, fmt.Errorf("health: %w", err)
		}
	}
}
