package workload

import (
	"bytes"
	"errors"
	"io"
	"net/netip"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/periplus-mesh/periplus/cluster-agent/etcd"
	"github.com/periplus-mesh/periplus/internal/mesh"
)

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

// anyCluster admits what the agent may or may not admit: only it knows the cluster's registration.
func anyCluster(id mesh.ClusterID, network string, domain spiffeid.TrustDomain) *mesh.Cluster {
	everything := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	if network == "" {
		network = "default"
	}
	return &mesh.Cluster{ID: id, Region: "region", TrustDomain: domain, Networks: []mesh.NetworkRange{{Name: mesh.Network(network), CIDRs: everything}}}
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
