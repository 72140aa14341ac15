package translate

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

// Limits of what a client may declare of itself.
const (
	maxMetadataBytes = 64 << 10
	maxInbound       = 64
)

// ViewOf makes the view of a client. Role, cluster and namespace come from its certificate; the node's locality and
// metadata only choose among what these allow. An absent NETWORK leaves Network empty: the caller, who knows the
// cluster's networks, chooses. The error names the metadata key that is wrong.
func ViewOf(role Role, cluster mesh.ClusterID, namespace string, node *corev3.Node) (View, error) {
	v := View{Role: role, Cluster: cluster, Namespace: namespace}
	if size := proto.Size(node.GetMetadata()); size > maxMetadataBytes {
		return View{}, fmt.Errorf("node metadata: %d bytes, at most %d", size, maxMetadataBytes)
	}
	l := node.GetLocality()
	var err error
	v.Locality = mesh.Locality{Region: l.GetRegion(), Zone: l.GetZone(), Subzone: l.GetSubZone()}
	if parsed, err := mesh.ParseLocality(v.Locality.String()); err != nil || parsed != v.Locality {
		return View{}, fmt.Errorf("node locality %q: want region, zone and subzone of letters, digits, '-', '.' and '_'", v.Locality)
	}
	if network := node.GetMetadata().GetFields()["NETWORK"].GetStringValue(); network != "" {
		if v.Network, err = mesh.ParseNetwork(network); err != nil {
			return View{}, fmt.Errorf("node metadata: NETWORK: %w", err)
		}
	}
	workload, err := workloadOf(node)
	if err != nil {
		return View{}, fmt.Errorf("node metadata: %w", err)
	}
	v.Workload, err = workload.canonical()
	return v, err
}

// ViewFor makes the view of a client whose verified identity is id, in the registered cluster that its trust domain
// belongs to: role and namespace are the identity's, an absent network is the cluster's only one, an absent region the
// cluster's. It refuses identities that are neither workload nor gateway, and networks that are not the cluster's.
func ViewFor(c *mesh.Cluster, id spiffeid.ID, node *corev3.Node) (View, error) {
	role, namespace := Gateway, ""
	if id != mesh.GatewayIdentity(c.TrustDomain) {
		workload, err := mesh.ParseWorkloadIdentity(id)
		if err != nil {
			return View{}, err
		}
		role, namespace = workloadRole(node), workload.Namespace
	}
	v, err := ViewOf(role, c.ID, namespace, node)
	if err != nil {
		return View{}, err
	}
	if v.Network == "" && len(c.Networks) == 1 {
		v.Network = c.Networks[0].Name
	}
	if !slices.ContainsFunc(c.Networks, func(n mesh.NetworkRange) bool { return n.Name == v.Network }) {
		return View{}, fmt.Errorf("node metadata: NETWORK %q is not one of cluster %q", v.Network, c.ID)
	}
	if v.Locality.Region == "" {
		v.Locality = mesh.Locality{Region: c.Region}
	}
	return v, nil
}

func workloadOf(node *corev3.Node) (Workload, error) {
	var w Workload
	if node.GetMetadata() == nil {
		return w, nil
	}
	data, err := protojson.Marshal(node.GetMetadata())
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal(data, &w); err != nil { // unknown keys are other software's (Envoy, Istio)
		return w, err
	}
	return w, w.validate()
}

func (w *Workload) validate() error {
	if w.Bind != "" {
		bind, err := netip.ParseAddr(w.Bind)
		if err != nil || bind.Zone() != "" {
			return fmt.Errorf("BIND: %q is not an IP address", w.Bind)
		}
		w.Bind = bind.String()
	} else if w.OutboundPort != 0 || w.TCPOutbound || len(w.Inbound) > 0 || w.GatewayPort != 0 {
		return fmt.Errorf("BIND: missing; listeners need an address")
	}
	if len(w.Labels) > mesh.MaxLabels {
		return fmt.Errorf("LABELS: %d, at most %d", len(w.Labels), mesh.MaxLabels)
	}
	if len(w.Inbound) > maxInbound {
		return fmt.Errorf("INBOUND: %d ports, at most %d", len(w.Inbound), maxInbound)
	}
	taken := map[uint16]bool{w.OutboundPort: w.OutboundPort != 0, w.GatewayPort: w.GatewayPort != 0}
	for i := range w.Inbound {
		in := &w.Inbound[i]
		if err := in.validate(); err != nil {
			return fmt.Errorf("INBOUND %d: %w", i, err)
		}
		if taken[in.EndpointPort] {
			return fmt.Errorf("INBOUND %d: port %d is taken", i, in.EndpointPort)
		}
		taken[in.EndpointPort] = true
	}
	return nil
}

func (in *Inbound) validate() error {
	if _, err := mesh.ParseServiceName(in.Service); err != nil {
		return fmt.Errorf("SERVICE: %w", err)
	}
	port := mesh.Service{
		Name: mesh.ServiceName{Namespace: "x", Name: "x"}, Cluster: "x",
		Ports: []mesh.ServicePort{{Name: in.PortName, Port: in.ServicePort, Protocol: in.Protocol}},
	}
	if err := port.Validate(); err != nil {
		return fmt.Errorf("PORT_NAME, SERVICE_PORT or PROTOCOL: %w", err)
	}
	if in.EndpointPort == 0 {
		return fmt.Errorf("ENDPOINT_PORT: missing")
	}
	if host, port := in.Address(); host == "" || port == 0 {
		return fmt.Errorf("APP: %q: want IP:PORT or localhost:PORT", in.App)
	}
	return nil
}

// Address is the application's address; validate has checked it.
func (in *Inbound) Address() (string, uint16) {
	text := in.App
	if port, ok := strings.CutPrefix(text, "localhost:"); ok {
		text = "127.0.0.1:" + port
	}
	address, err := netip.ParseAddrPort(text)
	if err != nil || address.Addr().Zone() != "" {
		return "", 0
	}
	return address.Addr().String(), address.Port()
}

// canonical is the workload as JSON with its parts in order, so that equal workloads make equal views.
func (w Workload) canonical() (string, error) {
	slices.SortFunc(w.Inbound, func(a, b Inbound) int { return int(a.EndpointPort) - int(b.EndpointPort) })
	data, err := json.Marshal(w)
	return string(data), err
}

// Declared is what ViewOf put into the view; a view made otherwise may have none.
func (v View) Declared() Workload {
	var w Workload
	if v.Workload != "" && json.Unmarshal([]byte(v.Workload), &w) != nil {
		return Workload{}
	}
	return w
}
