package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

// workloadForm is the flags that say what a workload is.
type workloadForm struct {
	service, address, network, locality, zone, identity string
	ports, labels                                       []string
	weight                                              uint32
	exported                                            bool
}

func (f *workloadForm) flags(flags *pflag.FlagSet) {
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

func (f *workloadForm) used() bool {
	return f.service != "" || f.address != "" || len(f.ports) > 0 || f.identity != "" || f.network != "" || f.zone != "" || len(f.labels) > 0 || f.exported
}

// document is one of a services file; see package file, which reads it.
type workloadDocument struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   struct {
		Name      string `yaml:"name"`
		Namespace string `yaml:"namespace"`
	} `yaml:"metadata"`
	Spec map[string]any `yaml:"spec"`
}

// value is the record that the flags say; what they leave out, is left to the cluster's registration.
func (f *workloadForm) value(name string) ([]byte, error) {
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
		d := workloadDocument{APIVersion: "periplus.io/v1", Kind: kind, Spec: specs[i]}
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

func (f *workloadForm) portMaps() (service []map[string]any, endpoint map[string]uint16, err error) {
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

// anyCluster admits what the agent may or may not admit: only it knows the cluster's registration.
func anyCluster(id mesh.ClusterID, network string, domain spiffeid.TrustDomain) *mesh.Cluster {
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	if network == "" {
		network = "default"
	}
	return &mesh.Cluster{ID: id, Region: "region", TrustDomain: domain, Networks: []mesh.NetworkRange{{Name: mesh.Network(network), CIDRs: everything}}}
}

// readWorkload finds the key of a record, and refuses what no cluster would take.
func readWorkload(value []byte, cluster mesh.ClusterID) (etcd.Name, error) {
	name, _, _, err := hints(value)
	if err == nil {
		_, err = etcd.ParseName(name.Path())
	}
	if err == nil {
		_, err = parseWorkload(name, value, cluster)
	}
	return name, err
}

// parseWorkload reads a record as far as that is possible without the cluster's registration.
func parseWorkload(name etcd.Name, value []byte, cluster mesh.ClusterID) (etcd.Record, error) {
	_, network, identity, err := hints(value)
	if err != nil {
		return etcd.Record{}, err
	}
	var domain spiffeid.TrustDomain
	if id, err := spiffeid.FromString(identity); err == nil {
		domain = id.TrustDomain()
	}
	return etcd.ParseRecord(name, value, anyCluster(cluster, network, domain))
}

// hints looks into documents for what is needed to read them strictly.
func hints(value []byte) (name etcd.Name, network, identity string, err error) {
	decoder := yaml.NewDecoder(bytes.NewReader(value))
	for {
		var d struct {
			Kind     string                           `yaml:"kind"`
			Metadata struct{ Name, Namespace string } `yaml:"metadata"`
			Spec     struct {
				Endpoints []struct{ Name, Network, Identity string }
			} `yaml:"spec"`
		}
		err := decoder.Decode(&d)
		if errors.Is(err, io.EOF) {
			return name, "", "", errors.New("a document of kind Endpoints with one endpoint is needed")
		}
		if err != nil {
			return name, "", "", err
		}
		if d.Kind == "Endpoints" && len(d.Spec.Endpoints) == 1 {
			e := d.Spec.Endpoints[0]
			service := mesh.ServiceName{Namespace: d.Metadata.Namespace, Name: d.Metadata.Name}
			return etcd.Name{Folder: etcd.Endpoints, Service: service, Workload: e.Name}, e.Network, e.Identity, nil
		}
	}
}

// listed is a row of 'workload list'.
type listed struct {
	name   etcd.Name
	record etcd.Record
	bad    string
	lease  time.Duration // what is left; -1: none
}

func listedOf(path string, value []byte, cluster mesh.ClusterID) (l listed, ok bool) {
	name, err := etcd.ParseName(path)
	if err != nil || name.Folder == etcd.Services {
		return l, false
	}
	l.name = name
	l.record, err = parseWorkload(name, value, cluster)
	if err != nil {
		l.bad = err.Error()
	}
	return l, true
}

func printWorkloads(w io.Writer, output string, rows []listed) error {
	list := cli.List{Kind: "Workload", Columns: []cli.Column{
		{Title: "NAME"}, {Title: "SERVICE"}, {Title: "ADDRESS"}, {Title: "HEALTH"}, {Title: "BY"}, {Title: "LEASE"},
		{Title: "ZONE", Wide: true}, {Title: "IDENTITY", Wide: true}, {Title: "LABELS", Wide: true},
	}}
	items := make([]map[string]any, 0, len(rows))
	for _, row := range rows {
		cells, item := row.print()
		list.Rows = append(list.Rows, cli.Row{Name: row.name.Workload, Cells: cells})
		items = append(items, item)
	}
	if output == "json" || output == "yaml" {
		return cli.Document(w, output, map[string]any{"apiVersion": "periplus.io/v1", "kind": "WorkloadList", "items": items})
	}
	return list.Print(w, output)
}

func (l *listed) print() (cells []string, item map[string]any) {
	by := "registration"
	if l.name.Folder == etcd.Sidecars {
		by = "sidecar"
	}
	item = map[string]any{"name": l.name.Workload, "service": l.name.Service.String(), "by": by}
	if l.lease >= 0 {
		item["leaseSeconds"] = int(l.lease.Seconds())
	}
	if l.bad != "" {
		item["error"] = l.bad
		return []string{l.name.Workload, l.name.Service.String(), "<bad>", "<bad>", by, cli.Age(l.lease), "", "", l.bad}, item
	}
	e := l.record.Slice.Endpoints[0]
	zone := strings.Trim(e.Locality.Zone+"/"+e.Locality.Subzone, "/")
	identity := "<none>"
	if !e.Identity.IsZero() {
		identity = e.Identity.String()
		item["identity"] = identity
	}
	labels := make([]string, 0, len(e.Labels))
	for key, value := range e.Labels {
		labels = append(labels, key+"="+value)
	}
	item["address"], item["ports"], item["health"], item["zone"], item["labels"], item["weight"] = e.Address.String(), e.Ports, e.Health, zone, e.Labels, e.Weight
	return []string{l.name.Workload, l.name.Service.String(), e.Address.String(), string(e.Health), by, cli.Age(l.lease), zone, identity, strings.Join(labels, ",")}, item
}
