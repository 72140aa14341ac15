package file

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Format writes services and slices as documents that Parse reads back. A slice's name is not part of its document.
func Format(objects ...mesh.Object) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, object := range objects {
		d := document{APIVersion: APIVersion}
		switch o := object.(type) {
		case *mesh.Service:
			d.Kind, d.Metadata = "Service", metadata{o.Name.Name, o.Name.Namespace}
			d.Spec.Exported = o.Exported
			for _, p := range o.Ports {
				d.Spec.Ports = append(d.Spec.Ports, port{p.Name, p.Port, string(p.Protocol)})
			}
		case *mesh.EndpointSlice:
			d.Kind, d.Metadata = "Endpoints", metadata{o.Service.Name, o.Service.Namespace}
			for i := range o.Endpoints {
				d.Spec.Endpoints = append(d.Spec.Endpoints, formatEndpoint(&o.Endpoints[i]))
			}
		default:
			return nil, fmt.Errorf("%s has no document", object.Key())
		}
		if err := encoder.Encode(&d); err != nil {
			return nil, fmt.Errorf("%s: %w", object.Key(), err)
		}
	}
	return out.Bytes(), encoder.Close()
}

func formatEndpoint(e *mesh.Endpoint) endpoint {
	out := endpoint{
		Name: e.Name, Address: e.Address.String(), Ports: e.Ports, Network: string(e.Network), Locality: e.Locality.String(),
		Weight: e.Weight, Health: string(e.Health), Labels: e.Labels,
	}
	if !e.Identity.IsZero() {
		out.Identity = e.Identity.String()
	}
	return out
}
