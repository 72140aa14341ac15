package mesh

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Limits that one object must keep, so that one bad cluster cannot hurt the others.
const (
	MaxEndpointsPerSlice = 1_000
	MaxLabels            = 64
	MaxWeight            = 65_535
	maxNameBytes         = 253
)

func (c *Cluster) Validate() error {
	if _, err := ParseClusterID(string(c.ID)); err != nil {
		return err
	}
	at := func(field, format string, args ...any) error {
		return fmt.Errorf("cluster %q: %s: %s", c.ID, field, fmt.Sprintf(format, args...))
	}
	switch {
	case !isName(c.Region, maxNameBytes):
		return at("region", "%q is not a name", c.Region)
	case c.TrustDomain.IsZero():
		return at("trust domain", "missing")
	case len(c.Networks) == 0:
		return at("networks", "at least one is needed")
	case c.State != ClusterActive && c.State != ClusterDrained:
		return at("state", "%q is neither active nor drained", c.State)
	}
	for _, network := range c.Networks {
		if _, err := ParseNetwork(string(network.Name)); err != nil {
			return at("networks", "%v", err)
		}
		for _, cidr := range network.CIDRs {
			if !cidr.IsValid() {
				return at("networks", "network %q has an invalid CIDR", network.Name)
			}
		}
	}
	for _, namespace := range c.Namespaces {
		if !isLabel(namespace) {
			return at("namespaces", "%q is not an RFC 1123 label", namespace)
		}
	}
	return nil
}

// Admits tells why cluster c may not have an endpoint at address in network, or nil.
func (c *Cluster) Admits(network Network, address netip.Addr) error {
	i := slices.IndexFunc(c.Networks, func(r NetworkRange) bool { return r.Name == network })
	if i < 0 {
		return fmt.Errorf("network %q is not one of cluster %q", network, c.ID)
	}
	for _, cidr := range c.Networks[i].CIDRs {
		if cidr.Contains(address.Unmap()) {
			return nil
		}
	}
	return fmt.Errorf("address %s is outside the CIDRs of network %q of cluster %q", address, network, c.ID)
}

// AdmitsNamespace tells whether c may publish services in namespace.
func (c *Cluster) AdmitsNamespace(namespace string) bool {
	return len(c.Namespaces) == 0 || slices.Contains(c.Namespaces, namespace)
}

func (s *Service) Validate() error {
	if err := s.Name.validate(); err != nil {
		return err
	}
	if _, err := ParseClusterID(string(s.Cluster)); err != nil {
		return fmt.Errorf("service %q: %w", s.Name, err)
	}
	names, numbers := map[string]bool{}, map[uint16]bool{}
	for _, port := range s.Ports {
		switch {
		case !isLabel(port.Name):
			return fmt.Errorf("service %q: port name %q is not an RFC 1123 label", s.Name, port.Name)
		case port.Port == 0:
			return fmt.Errorf("service %q: port %q: number 0", s.Name, port.Name)
		case !slices.Contains([]Protocol{HTTP, HTTP2, GRPC, TCP}, port.Protocol):
			return fmt.Errorf("service %q: port %q: protocol %q is none of http, http2, grpc, tcp", s.Name, port.Name, port.Protocol)
		case names[port.Name] || numbers[port.Port]:
			return fmt.Errorf("service %q: port %q (%d) twice", s.Name, port.Name, port.Port)
		}
		names[port.Name], numbers[port.Port] = true, true
	}
	if len(s.Ports) == 0 {
		return fmt.Errorf("service %q: no ports", s.Name)
	}
	return nil
}

func (e *EndpointSlice) Validate() error {
	if err := e.Service.validate(); err != nil {
		return err
	}
	if _, err := ParseClusterID(string(e.Cluster)); err != nil {
		return fmt.Errorf("service %q: %w", e.Service, err)
	}
	if !isName(e.Slice, maxNameBytes) {
		return fmt.Errorf("service %q: slice name %q is not a name", e.Service, e.Slice)
	}
	if len(e.Endpoints) > MaxEndpointsPerSlice {
		return fmt.Errorf("service %q: slice %q has %d endpoints, at most %d", e.Service, e.Slice, len(e.Endpoints), MaxEndpointsPerSlice)
	}
	seen := map[string]bool{}
	for i := range e.Endpoints {
		endpoint := &e.Endpoints[i]
		if err := endpoint.validate(); err != nil {
			return fmt.Errorf("service %q: slice %q: endpoint %q: %w", e.Service, e.Slice, endpoint.Name, err)
		}
		if seen[endpoint.Name] {
			return fmt.Errorf("service %q: slice %q: endpoint %q twice", e.Service, e.Slice, endpoint.Name)
		}
		seen[endpoint.Name] = true
	}
	return nil
}

func (e *Endpoint) validate() error {
	if !isName(e.Name, maxNameBytes) {
		return fmt.Errorf("name %q is not a name", e.Name)
	}
	if err := validAddress(e.Address); err != nil {
		return err
	}
	if _, err := ParseNetwork(string(e.Network)); err != nil {
		return err
	}
	if len(e.Ports) == 0 {
		return fmt.Errorf("no ports")
	}
	for name, port := range e.Ports {
		if !isLabel(name) || port == 0 {
			return fmt.Errorf("port %q: %d is not a port", name, port)
		}
	}
	if e.Weight == 0 || e.Weight > MaxWeight {
		return fmt.Errorf("weight %d is outside 1..%d", e.Weight, MaxWeight)
	}
	if err := validHealth(e.Health); err != nil {
		return err
	}
	if err := validLabels(e.Labels); err != nil {
		return err
	}
	return e.Locality.validate()
}

// validAddress refuses what can never be an endpoint. Loopback is a matter of the cluster's CIDRs.
func validAddress(a netip.Addr) error {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
		return fmt.Errorf("address %q is not a unicast address", a)
	}
	return nil
}

func validHealth(h Health) error {
	if h != Healthy && h != Unhealthy && h != Draining {
		return fmt.Errorf("health %q is none of healthy, unhealthy, draining", h)
	}
	return nil
}

func validLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("%d labels, at most %d", len(labels), MaxLabels)
	}
	for name, value := range labels {
		if !isName(strings.ReplaceAll(name, "/", "."), 317) || value != "" && !isName(value, 63) {
			return fmt.Errorf("label %q=%q is not a Kubernetes label", name, value)
		}
	}
	return nil
}

func (g *Gateway) Validate() error {
	if _, err := ParseClusterID(string(g.Cluster)); err != nil {
		return fmt.Errorf("gateway %q: %w", g.Name, err)
	}
	err := validAddress(g.Address)
	switch {
	case !isName(g.Name, maxNameBytes):
		err = fmt.Errorf("name %q is not a name", g.Name)
	case g.Port == 0:
		err = fmt.Errorf("port 0")
	case err == nil:
		if _, err = ParseNetwork(string(g.Network)); err == nil {
			if err = validHealth(g.Health); err == nil {
				err = g.Locality.validate()
			}
		}
	}
	if err != nil {
		return fmt.Errorf("gateway %q: %w", g.Name, err)
	}
	return nil
}

func (s *Summary) Validate() error {
	if err := s.Service.validate(); err != nil {
		return err
	}
	if _, err := ParseClusterID(string(s.Cluster)); err != nil {
		return err
	}
	if _, err := ParseNetwork(string(s.Network)); err != nil {
		return err
	}
	for _, bucket := range s.Buckets {
		if bucket.Healthy > bucket.Total {
			return fmt.Errorf("service %q: summary counts %d healthy of %d", s.Service, bucket.Healthy, bucket.Total)
		}
		if err := validLabels(bucket.Labels); err != nil {
			return err
		}
	}
	return s.Locality.validate()
}

func (f *Federation) Validate() error {
	switch {
	case f.TrustDomain.IsZero():
		return fmt.Errorf("federation: no trust domain")
	case len(f.Bundle) == 0:
		return fmt.Errorf("federation %q: no bundle", f.TrustDomain.Name())
	case len(f.Bundle) > 1<<20:
		return fmt.Errorf("federation %q: bundle of %d bytes, at most 1 MiB", f.TrustDomain.Name(), len(f.Bundle))
	}
	if err := f.validateEndpoint(); err != nil {
		return fmt.Errorf("federation %q: bundle endpoint: %w", f.TrustDomain.Name(), err)
	}
	_, err := ParseClusterID(string(f.Cluster))
	return err
}

// validateEndpoint insists on the profile https_spiffe with an ID of the domain itself (SPIFFE Federation, section 5.2).
func (f *Federation) validateEndpoint() error {
	if f.EndpointURL == "" && f.EndpointID.IsZero() {
		return nil
	}
	u, err := url.Parse(f.EndpointURL)
	switch {
	case err != nil:
		return err
	case len(f.EndpointURL) > 2048 || u.Scheme != "https" || u.Host == "" || u.User != nil:
		return fmt.Errorf("want https://host/path without user information, got %q", f.EndpointURL)
	case f.EndpointID.TrustDomain() != f.TrustDomain || f.EndpointID.Path() == "":
		return fmt.Errorf("SPIFFE ID %q is no workload of the domain", f.EndpointID)
	}
	return nil
}

func (t *JoinToken) Validate() error {
	if len(t.Hash) != 64 {
		return fmt.Errorf("join token: hash is not SHA-256")
	}
	return t.Cluster.Validate()
}

func (c *Cursor) Validate() error {
	_, err := ParseClusterID(string(c.Cluster))
	return err
}

func (r *RemovedReplica) Validate() error {
	if !isLabel(r.ID) {
		return fmt.Errorf("removed replica %q: must be an RFC 1123 label (a-z, 0-9, '-', at most 63)", r.ID)
	}
	return nil
}

func (r *PolicyRevision) Validate() error {
	if r.Revision == 0 {
		return fmt.Errorf("policy revision: number 0")
	}
	return nil
}

// Validate checks the spec as well.
func (p *Policy) Validate() error {
	switch {
	case NewPolicySpec(p.Kind) == nil:
		return fmt.Errorf("policy kind %q is not known", p.Kind)
	case !isLabel(p.Namespace) || !isName(p.Name, maxNameBytes):
		return fmt.Errorf("%s %q: namespace %q or name is not a name", p.Kind, p.Name, p.Namespace)
	case p.Spec == nil:
		return fmt.Errorf("%s %q: no spec", p.Kind, p.Name)
	}
	if err := p.Spec.validate(); err != nil {
		return fmt.Errorf("%s %s/%s: %w", p.Kind, p.Namespace, p.Name, err)
	}
	return nil
}

func (d *DestinationRule) validate() error { return d.Host.validate() }

func (v *VirtualService) validate() error {
	if len(v.Hosts) == 0 {
		return fmt.Errorf("no hosts")
	}
	for _, route := range v.HTTP {
		if len(route.Destinations) == 0 {
			return fmt.Errorf("http route %q has no destination", route.Name)
		}
	}
	return nil
}

func (a *AuthorizationPolicy) validate() error {
	if a.Action != Allow && a.Action != Deny {
		return fmt.Errorf("action %q is neither ALLOW nor DENY", a.Action)
	}
	return nil
}
