package mesh

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func cluster() *Cluster {
	return &Cluster{
		ID: "west", Region: "eu-west", State: ClusterActive, TrustDomain: spiffeid.RequireTrustDomainFromString("west.mesh"),
		Networks: []NetworkRange{{Name: "n1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
	}
}

func slice() *EndpointSlice {
	return &EndpointSlice{Service: ServiceName{"shop", "cart"}, Cluster: "west", Slice: "s", Endpoints: []Endpoint{{
		Name: "e", Address: netip.MustParseAddr("10.0.0.1"), Ports: map[string]uint16{"http": 80}, Network: "n1", Health: Healthy, Weight: 1,
	}}}
}

func TestValidate(t *testing.T) {
	withCluster := func(edit func(*Cluster)) Object { c := cluster(); edit(c); return c }
	withEndpoint := func(edit func(*Endpoint)) Object { s := slice(); edit(&s.Endpoints[0]); return s }
	withSlice := func(edit func(*EndpointSlice)) Object { s := slice(); edit(s); return s }
	service := func(ports ...ServicePort) Object {
		return &Service{Name: ServiceName{"shop", "cart"}, Cluster: "west", Ports: ports}
	}
	gateway := func(edit func(*Gateway)) Object {
		g := &Gateway{Cluster: "west", Name: "g", Network: "n1", Address: netip.MustParseAddr("10.0.0.1"), Port: 1, Health: Healthy}
		edit(g)
		return g
	}
	for _, c := range []struct {
		object Object
		want   string // part of the error; "" is valid
	}{
		{cluster(), ""},
		{withCluster(func(c *Cluster) { c.ID = "Upper" }), "RFC 1123"},
		{withCluster(func(c *Cluster) { c.Region = "" }), "region"},
		{withCluster(func(c *Cluster) { c.TrustDomain = spiffeid.TrustDomain{} }), "trust domain"},
		{withCluster(func(c *Cluster) { c.Networks = nil }), "networks"},
		{withCluster(func(c *Cluster) { c.Networks[0].Name = "a/b" }), "networks"},
		{withCluster(func(c *Cluster) { c.Networks[0].CIDRs = []netip.Prefix{{}} }), "CIDR"},
		{withCluster(func(c *Cluster) { c.State = "asleep" }), "state"},
		{withCluster(func(c *Cluster) { c.Namespaces = []string{"a.b"} }), "namespaces"},
		{slice(), ""},
		{withEndpoint(func(e *Endpoint) { e.Name = "a b" }), "name"},
		{withEndpoint(func(e *Endpoint) { e.Address = netip.Addr{} }), "address"},
		{withEndpoint(func(e *Endpoint) { e.Address = netip.MustParseAddr("0.0.0.0") }), "address"},
		{withEndpoint(func(e *Endpoint) { e.Address = netip.MustParseAddr("ff02::1") }), "address"},
		{withEndpoint(func(e *Endpoint) { e.Address = netip.MustParseAddr("fe80::1%eth0") }), "address"},
		{withEndpoint(func(e *Endpoint) { e.Network = "" }), "network"},
		{withEndpoint(func(e *Endpoint) { e.Ports = nil }), "no ports"},
		{withEndpoint(func(e *Endpoint) { e.Ports = map[string]uint16{"http": 0} }), "port"},
		{withEndpoint(func(e *Endpoint) { e.Weight = 0 }), "weight"},
		{withEndpoint(func(e *Endpoint) { e.Weight = MaxWeight + 1 }), "weight"},
		{withEndpoint(func(e *Endpoint) { e.Health = "" }), "health"},
		{withEndpoint(func(e *Endpoint) { e.Labels = map[string]string{"a b": "c"} }), "label"},
		{withEndpoint(func(e *Endpoint) { e.Labels = map[string]string{"example.com/a": "", "b": "c"} }), ""},
		{withEndpoint(func(e *Endpoint) { e.Locality = Locality{Zone: "a"} }), "locality"},
		{withSlice(func(s *EndpointSlice) { s.Slice = "a/b" }), "slice name"},
		{withSlice(func(s *EndpointSlice) { s.Service.Name = "" }), "RFC 1123"},
		{withSlice(func(s *EndpointSlice) { s.Endpoints = append(s.Endpoints, s.Endpoints[0]) }), "twice"},
		{withSlice(func(s *EndpointSlice) { s.Endpoints = make([]Endpoint, MaxEndpointsPerSlice+1) }), "at most"},
		{service(ServicePort{"http", 80, HTTP}, ServicePort{"db", 5432, TCP}), ""},
		{service(), "no ports"},
		{service(ServicePort{"http", 0, HTTP}), "number 0"},
		{service(ServicePort{"http", 80, "udp"}), "protocol"},
		{service(ServicePort{"a", 80, HTTP}, ServicePort{"a", 81, HTTP}), "twice"},
		{service(ServicePort{"a", 80, HTTP}, ServicePort{"b", 80, HTTP}), "twice"},
		{gateway(func(*Gateway) {}), ""},
		{gateway(func(g *Gateway) { g.Port = 0 }), "port 0"},
		{gateway(func(g *Gateway) { g.Network = "" }), "network"},
		{gateway(func(g *Gateway) { g.Health = "?" }), "health"},
		{&Summary{Service: ServiceName{"shop", "cart"}, Cluster: "west", Network: "n1", Buckets: []SummaryBucket{{Total: 1, Healthy: 2}}}, "2 healthy of 1"},
		{&Federation{Cluster: "west"}, "trust domain"},
		{&Federation{Cluster: "west", TrustDomain: cluster().TrustDomain}, "no bundle"},
		{&Federation{Cluster: "west", TrustDomain: cluster().TrustDomain, Bundle: make([]byte, 1<<20+1)}, "at most 1 MiB"},
		{&Federation{Cluster: "west", TrustDomain: cluster().TrustDomain, Bundle: []byte("{}"), EndpointURL: "http://x", EndpointID: AgentIdentity(cluster().TrustDomain)}, "want https://"},
		{&Federation{Cluster: "west", TrustDomain: cluster().TrustDomain, Bundle: []byte("{}"), EndpointURL: "https://x"}, "no workload of the domain"},
		{&Federation{Cluster: "west", TrustDomain: cluster().TrustDomain, Bundle: []byte("{}"), EndpointURL: "https://x", EndpointID: AgentIdentity(spiffeid.RequireTrustDomainFromString("rogue.mesh"))}, "no workload of the domain"},
		{&JoinToken{Hash: "abc", Cluster: *cluster()}, "SHA-256"},
		{&Cursor{}, "cluster"},
		{&PolicyRevision{}, "number 0"},
		{&Policy{Kind: "X"}, "not known"},
		{&Policy{Kind: KindVirtualService, Namespace: "shop", Name: "v"}, "no spec"},
		{&Policy{Kind: KindVirtualService, Namespace: "shop", Name: "v", Spec: &VirtualService{}}, "no hosts"},
		{&Policy{Kind: KindAuthorizationPolicy, Namespace: "shop", Name: "v", Spec: &AuthorizationPolicy{Action: "AUDIT"}}, "neither ALLOW nor DENY"},
	} {
		err := c.object.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%T %+v: want %q, got %v", c.object, c.object, c.want, err)
		}
	}
}

func TestAdmits(t *testing.T) {
	c := cluster()
	for address, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "fd00::1": false} {
		if err := c.Admits("n1", netip.MustParseAddr(address)); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if c.Admits("n2", netip.MustParseAddr("10.1.2.3")) == nil {
		t.Error("another network is admitted")
	}
	c.Namespaces = []string{"shop"}
	if !c.AdmitsNamespace("shop") || c.AdmitsNamespace("web") {
		t.Error("namespaces")
	}
}

func TestParseNames(t *testing.T) {
	for text, want := range map[string]string{
		"cart.shop": "cart.shop", "cart.shop.svc": "cart.shop", "cart.shop.svc.cluster.local": "cart.shop",
		"cart.shop.svc.clusterset.local": "cart.shop", "cart": "", "cart.shop.example.com": "", "": "", "Cart.shop": "",
	} {
		got, err := ParseServiceName(text)
		if err == nil && got.String() != want || err != nil && want != "" {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]bool{"": true, "eu": true, "eu/a": true, "eu/a/b": true, "eu/a/b/c": false, "/a": false, "eu//b": false, "e u": false} {
		l, err := ParseLocality(text)
		if (err == nil) != want || want && l.String() != text {
			t.Errorf("%q: %v, %v", text, l, err)
		}
	}
}

// What a key says of its object's owner is what the object says.
func TestKeys(t *testing.T) {
	n := ServiceName{"shop", "cart"}
	for _, c := range []struct {
		key     Key
		kind    Kind
		service ServiceName
		cluster ClusterID
	}{
		{ServiceKey(n, "west"), KindService, n, "west"},
		{EndpointsKey(n, "west", "s"), KindEndpoints, n, "west"},
		{(&Summary{Service: n, Cluster: "west", Network: "n1"}).Key(), KindSummary, n, "west"},
		{GatewayKey("west", "g"), KindGateway, ServiceName{}, "west"},
		{ClusterKey("west"), KindCluster, ServiceName{}, "west"},
		{CursorKey("west"), KindCursor, ServiceName{}, "west"},
		{FederationKey("west.mesh"), KindFederation, ServiceName{}, ""},
		{PolicyRevisionKey(7), KindPolicyRevision, ServiceName{}, ""},
		{"nonsense", "nonsense", ServiceName{}, ""}, {"", "", ServiceName{}, ""}, {"service/a", KindService, ServiceName{}, ""},
	} {
		service, _, _ := c.key.Service()
		owner, _ := c.key.Cluster()
		if c.key.Kind() != c.kind || service != c.service || owner != c.cluster {
			t.Errorf("%q: %q, %v, %q", c.key, c.key.Kind(), service, owner)
		}
	}
	if PolicyRevisionKey(9) > PolicyRevisionKey(10) {
		t.Error("revisions do not sort")
	}
}

func TestIdentities(t *testing.T) {
	domain := cluster().TrustDomain
	w, err := ParseWorkloadIdentity(spiffeid.RequireFromString("spiffe://west.mesh/ns/shop/sa/cart"))
	if id, again := w.ID(); err != nil || again != nil || id.String() != "spiffe://west.mesh/ns/shop/sa/cart" {
		t.Errorf("%v, %v", w, err)
	}
	for _, id := range []spiffeid.ID{AgentIdentity(domain), GatewayIdentity(domain)} {
		if _, err := ParseWorkloadIdentity(id); err == nil {
			t.Errorf("%s is no workload", id)
		}
	}
	id, err := PlaneIdentity(domain, RoleAgent, "west")
	if err != nil {
		t.Fatal(err)
	}
	if role, name, err := ParsePlaneIdentity(id); role != RoleAgent || name != "west" || err != nil {
		t.Errorf("%q, %q, %v", role, name, err)
	}
	if _, _, err := ParsePlaneIdentity(spiffeid.RequireFromString("spiffe://west.mesh/root/west")); err == nil {
		t.Error("a role that is none")
	}
}
