package mesh

import (
	"fmt"
	"strings"
)

// ClusterID names a cluster, mesh-wide. An RFC 1123 label: 1-63 of a-z, 0-9 and '-'.
type ClusterID string

// Network names a set of addresses that reach each other directly. An RFC 1123 label.
type Network string

// Locality is where something runs, as in Envoy's core.v3.Locality. Empty parts are unknown.
type Locality struct {
	Region, Zone, Subzone string
}

// String is "region/zone/subzone" without empty tails.
func (l Locality) String() string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.Subzone, "/")
}

// ParseLocality reads "region[/zone[/subzone]]".
func ParseLocality(s string) (Locality, error) {
	parts := strings.Split(s, "/")
	if len(parts) > 3 {
		return Locality{}, fmt.Errorf("locality %q: want region[/zone[/subzone]]", s)
	}
	parts = append(parts, "", "")
	l := Locality{parts[0], parts[1], parts[2]}
	return l, l.validate()
}

func (l Locality) validate() error {
	for _, part := range []string{l.Region, l.Zone, l.Subzone} {
		if part != "" && !isName(part, 253) {
			return fmt.Errorf("locality %q: %q is not a name of letters, digits, '-', '.' and '_'", l, part)
		}
	}
	if l.Region == "" && (l.Zone != "" || l.Subzone != "") || l.Zone == "" && l.Subzone != "" {
		return fmt.Errorf("locality %q: a zone needs a region, a subzone needs a zone", l)
	}
	return nil
}

// ServiceName is a service's name, the same in every cluster (MCS "sameness", KEP-1645).
type ServiceName struct {
	Namespace, Name string
}

// ClusterDomain and ClustersetDomain end the long names of a service (Kubernetes DNS, KEP-1645).
const (
	ClusterDomain    = "svc.cluster.local"
	ClustersetDomain = "svc.clusterset.local"
)

// String is "name.namespace".
func (n ServiceName) String() string { return n.Name + "." + n.Namespace }

// Host is the fully qualified name, "name.namespace.svc.cluster.local".
func (n ServiceName) Host() string { return n.String() + "." + ClusterDomain }

// IsZero tells whether n names nothing.
func (n ServiceName) IsZero() bool { return n == ServiceName{} }

// ParseServiceName reads "name.namespace", alone or under [ClusterDomain], [ClustersetDomain] or "svc".
func ParseServiceName(s string) (ServiceName, error) {
	short := s
	for _, domain := range []string{ClusterDomain, ClustersetDomain, "svc"} {
		if cut, ok := strings.CutSuffix(s, "."+domain); ok {
			short = cut
			break
		}
	}
	name, namespace, ok := strings.Cut(short, ".")
	n := ServiceName{namespace, name}
	if !ok {
		return ServiceName{}, fmt.Errorf("service %q: want NAME.NAMESPACE", s)
	}
	return n, n.validate()
}

func (n ServiceName) validate() error {
	if !isLabel(n.Name) || !isLabel(n.Namespace) {
		return fmt.Errorf("service %q: name and namespace must be RFC 1123 labels (a-z, 0-9, '-', at most 63)", n)
	}
	return nil
}

// ParseClusterID refuses what is not an RFC 1123 label.
func ParseClusterID(s string) (ClusterID, error) {
	if !isLabel(s) {
		return "", fmt.Errorf("cluster %q: must be an RFC 1123 label (a-z, 0-9, '-', at most 63)", s)
	}
	return ClusterID(s), nil
}

// ParseNetwork refuses what is not an RFC 1123 label.
func ParseNetwork(s string) (Network, error) {
	if !isLabel(s) {
		return "", fmt.Errorf("network %q: must be an RFC 1123 label (a-z, 0-9, '-', at most 63)", s)
	}
	return Network(s), nil
}

// isLabel tells whether s is an RFC 1123 label.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

// isName allows what labels and object names of the field use: letters, digits, '-', '.', '_'.
func isName(s string, most int) bool {
	if s == "" || len(s) > most {
		return false
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_') {
			return false
		}
	}
	return true
}
