package workload

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// form is the flags that say what a workload is.
type form struct {
	service, address, network, locality, zone, identity string
	ports, labels                                       []string
	weight                                              uint32
	exported                                            bool
}

// formFlags are those that a file takes the place of.
var formFlags = []string{"service", "address", "port", "network", "zone", "identity", "label", "weight", "exported"}

func (f *form) flags(flags *pflag.FlagSet) {
	flags.StringVar(&f.service, "service", "", "service of the workload, NAME.NAMESPACE")
	flags.StringVar(&f.address, "address", "", "IP address of the workload")
	flags.StringArrayVar(&f.ports, "port", nil, "NAME=PORT[:PROTOCOL[:SERVICE-PORT]], repeatable; the protocol is http, http2, grpc or tcp (default: the name if it is one of them, else tcp), the service's port by default the same")
	flags.StringVar(&f.network, "network", "", "network of the address (default: the cluster's only one)")
	flags.StringVar(&f.zone, "zone", "", "zone in the cluster's region, ZONE[/SUBZONE]")
	flags.StringVar(&f.identity, "identity", "", "SPIFFE ID of the workload; none: no mTLS, and reachable within its network only")
	flags.StringArrayVar(&f.labels, "label", nil, "label of the workload, KEY=VALUE, repeatable")
	flags.Uint32Var(&f.weight, "weight", 1, "weight among the service's endpoints")
	flags.BoolVar(&f.exported, "exported", false, "other clusters may use the service's endpoints here")
}

// document is one of a services file; see package file, which reads it.
type document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
	Spec map[string]any `yaml:"spec"`
}

// value is the record that the flags say; what they leave out, is left to the cluster's registration.
func (f *form) value(name string) ([]byte, error) {
	service, err := mesh.ParseServiceName(f.service)
	if err != nil {
		return nil, fmt.Errorf("--service: %w", err)
	}
	if _, err := netip.ParseAddr(f.address); err != nil {
		return nil, fmt.Errorf("--address: %w", err)
	}
	endpoint := map[string]any{"name": name, "address": f.address, "weight": f.weight}
	for field, value := range map[string]string{"network": f.network, "identity": f.identity} {
		if value != "" {
			endpoint[field] = value
		}
	}
	if f.zone != "" {
		endpoint["locality"] = "/" + f.zone
	}
	if endpoint["labels"], err = labelMap(f.labels); err != nil {
		return nil, err
	}
	ports, endpointPorts, err := f.portMaps()
	if err != nil {
		return nil, err
	}
	endpoint["ports"] = endpointPorts
	return documents(service, map[string]any{"exported": f.exported, "ports": ports}, map[string]any{"endpoints": []any{endpoint}})
}

func documents(service mesh.ServiceName, specs ...map[string]any) ([]byte, error) {
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	for i, kind := range []string{"Service", "Endpoints"} {
		d := document{APIVersion: "periplus.io/v1", Kind: kind, Spec: specs[i]}
		d.Metadata.Name, d.Metadata.Namespace = service.Name, service.Namespace
		if err := encoder.Encode(d); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), encoder.Close()
}

func labelMap(labels []string) (map[string]string, error) {
	out := map[string]string{}
	for _, label := range labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok {
			return nil, fmt.Errorf("--label %q: want KEY=VALUE", label)
		}
		out[key] = value
	}
	return out, nil
}

func (f *form) portMaps() (service []map[string]any, endpoint map[string]uint16, err error) {
	endpoint = map[string]uint16{}
	for _, text := range f.ports {
		name, rest, ok := strings.Cut(text, "=")
		parts := append(strings.Split(rest, ":"), "", "")
		number, err := strconv.ParseUint(parts[0], 10, 16)
		if !ok || err != nil || number == 0 || len(parts) > 5 {
			return nil, nil, fmt.Errorf("--port %q: want NAME=PORT[:PROTOCOL[:SERVICE-PORT]]", text)
		}
		served := number
		if parts[2] != "" {
			if served, err = strconv.ParseUint(parts[2], 10, 16); err != nil || served == 0 {
				return nil, nil, fmt.Errorf("--port %q: service port %q is not 1..65535", text, parts[2])
			}
		}
		if _, twice := endpoint[name]; twice {
			return nil, nil, fmt.Errorf("--port %s is given twice", name)
		}
		endpoint[name] = uint16(number)
		service = append(service, map[string]any{"name": name, "port": served, "protocol": protocolOf(name, parts[1])})
	}
	if len(endpoint) == 0 {
		return nil, nil, errors.New("--port is needed")
	}
	return service, endpoint, nil
}

func protocolOf(name, protocol string) string {
	if protocol != "" {
		return protocol
	}
	switch mesh.Protocol(name) {
	case mesh.HTTP, mesh.HTTP2, mesh.GRPC:
		return name
	}
	return string(mesh.TCP)
}
