package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
)

func statLine(name string, m *dto.Metric) string {
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, l.GetName()+"="+l.GetValue())
	}
	if len(labels) > 0 {
		name += "{" + strings.Join(labels, ",") + "}"
	}
	switch {
	case m.Counter != nil:
		return fmt.Sprintf("%s: %v", name, m.Counter.GetValue())
	case m.Gauge != nil:
		return fmt.Sprintf("%s: %v", name, m.Gauge.GetValue())
	case m.Histogram != nil:
		return fmt.Sprintf("%s: count=%d sum=%v", name, m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum())
	}
	return name
}

// configDump has the shape of envoy.admin.v3.ConfigDump; ?resource asks for the elements of one field, as in Envoy.
func (s *server) configDump(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	for parameter := range query {
		if parameter != "include_eds" && parameter != "resource" {
			http.Error(w, fmt.Sprintf("?%s is not supported; ?include_eds and ?resource are", parameter), http.StatusBadRequest)
			return
		}
	}
	dump := &adminv3.ConfigDump{}
	kinds := []proto.Message{s.bootstrap(), s.clusterDump(), s.listenerDump(), s.routeDump()}
	if query.Has("include_eds") {
		kinds = append(kinds, s.endpointDump())
	}
	if query.Has("resource") {
		var known bool
		if kinds, known = s.elements(query.Get("resource")); !known {
			http.Error(w, fmt.Sprintf("resource %q is not one of dynamic_active_clusters, dynamic_endpoint_configs, dynamic_listeners, dynamic_route_configs",
				query.Get("resource")), http.StatusNotFound)
			return
		}
	}
	for _, kind := range kinds {
		packed, err := anypb.New(kind)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		dump.Configs = append(dump.Configs, packed)
	}
	writeProto(w, dump)
}

// elements of a field of one of the dumps; false if there is no such field.
func (s *server) elements(field string) ([]proto.Message, bool) {
	switch field {
	case "dynamic_active_clusters":
		return messages(s.clusterDump().DynamicActiveClusters), true
	case "dynamic_endpoint_configs":
		return messages(s.endpointDump().DynamicEndpointConfigs), true
	case "dynamic_listeners":
		return messages(s.listenerDump().DynamicListeners), true
	case "dynamic_route_configs":
		return messages(s.routeDump().DynamicRouteConfigs), true
	}
	return nil, false
}

func messages[M proto.Message](all []M) []proto.Message {
	out := make([]proto.Message, 0, len(all))
	for _, m := range all {
		out = append(out, m)
	}
	return out
}

func writeProto(w http.ResponseWriter, m proto.Message) { writeMessage(w, false, m) }

// extensions resolves the types that this binary knows. Others are shown by their name alone: access logs and optional
// filters that it leaves out are in the resources all the same.
type extensions struct{ *protoregistry.Types }

func (e extensions) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	known, err := e.Types.FindMessageByURL(url)
	if errors.Is(err, protoregistry.NotFound) {
		return (*emptypb.Empty)(nil).ProtoReflect().Type(), nil
	}
	return known, err
}

func writeMessage(w http.ResponseWriter, defaults bool, m proto.Message) {
	body, err := protojson.MarshalOptions{Multiline: true, Indent: " ", UseProtoNames: true, EmitDefaultValues: defaults,
		Resolver: extensions{protoregistry.GlobalTypes}}.Marshal(m)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

func (s *server) bootstrap() *adminv3.BootstrapConfigDump {
	return &adminv3.BootstrapConfigDump{LastUpdated: timestamppb.New(s.Began)}
}

func wrap(t xds.Type, r config.Resource) (*anypb.Any, *timestamppb.Timestamp) {
	return &anypb.Any{TypeUrl: string(t), Value: r.Body}, timestamppb.New(r.Updated)
}

func (s *server) clusterDump() *adminv3.ClustersConfigDump {
	out := &adminv3.ClustersConfigDump{}
	for _, r := range s.Resources(xds.Cluster) {
		body, at := wrap(xds.Cluster, r)
		out.DynamicActiveClusters = append(out.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: r.Version, Cluster: body, LastUpdated: at})
	}
	return out
}

func (s *server) listenerDump() *adminv3.ListenersConfigDump {
	out := &adminv3.ListenersConfigDump{}
	for _, r := range s.Resources(xds.Listener) {
		body, at := wrap(xds.Listener, r)
		out.DynamicListeners = append(out.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name: r.Name, ActiveState: &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: r.Version, Listener: body, LastUpdated: at},
		})
	}
	return out
}

func (s *server) routeDump() *adminv3.RoutesConfigDump {
	out := &adminv3.RoutesConfigDump{}
	for _, r := range s.Resources(xds.Route) {
		body, at := wrap(xds.Route, r)
		out.DynamicRouteConfigs = append(out.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{VersionInfo: r.Version, RouteConfig: body, LastUpdated: at})
	}
	return out
}

func (s *server) endpointDump() *adminv3.EndpointsConfigDump {
	out := &adminv3.EndpointsConfigDump{}
	for _, r := range s.Resources(xds.Endpoints) {
		body, at := wrap(xds.Endpoints, r)
		out.DynamicEndpointConfigs = append(out.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{VersionInfo: r.Version, EndpointConfig: body, LastUpdated: at})
	}
	return out
}

func (s *server) serverInfo(w http.ResponseWriter, _ *http.Request) {
	state, _ := s.State()
	uptime := durationpb.New(time.Since(s.Began).Truncate(time.Second))
	writeMessage(w, true, &adminv3.ServerInfo{
		Version: "periplus", State: adminv3.ServerInfo_State(adminv3.ServerInfo_State_value[state]), Node: s.Node,
		UptimeCurrentEpoch: uptime, UptimeAllEpochs: uptime,
	})
}

func (s *server) certs(w http.ResponseWriter, _ *http.Request) {
	material, _ := s.Source.Get()
	leaf := material.Certificate.Leaf
	one := &adminv3.Certificate{}
	if leaf != nil {
		one.CertChain = append(one.CertChain, &adminv3.CertificateDetails{
			SerialNumber: fmt.Sprintf("%x", leaf.SerialNumber), ValidFrom: timestamppb.New(leaf.NotBefore), ExpirationTime: timestamppb.New(leaf.NotAfter),
			SubjectAltNames:     []*adminv3.SubjectAlternateName{{Name: &adminv3.SubjectAlternateName_Uri{Uri: material.ID.String()}}},
			DaysUntilExpiration: uint64(max(0, time.Until(leaf.NotAfter)) / (24 * time.Hour)),
		})
	}
	for domain, roots := range material.Bundles {
		for _, root := range roots {
			one.CaCert = append(one.CaCert, &adminv3.CertificateDetails{
				Path: "bundle of " + domain.Name(), SerialNumber: fmt.Sprintf("%x", root.SerialNumber),
				ValidFrom: timestamppb.New(root.NotBefore), ExpirationTime: timestamppb.New(root.NotAfter),
				DaysUntilExpiration: uint64(max(0, time.Until(root.NotAfter)) / (24 * time.Hour)),
			})
		}
	}
	slices.SortStableFunc(one.CaCert, func(a, b *adminv3.CertificateDetails) int { return strings.Compare(a.Path, b.Path) })
	writeProto(w, &adminv3.Certificates{Certificates: []*adminv3.Certificate{one}})
}

func (s *server) listeners(w http.ResponseWriter, r *http.Request) {
	bound := s.Bound()
	names := make([]string, 0, len(bound))
	for name := range bound {
		names = append(names, name)
	}
	slices.Sort(names)
	if r.URL.Query().Get("format") == "json" {
		out := []map[string]any{}
		for _, name := range names {
			out = append(out, map[string]any{"name": name, "local_address": map[string]any{"socket_address": map[string]any{
				"address": bound[name].Addr().String(), "port_value": bound[name].Port()}}})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"listener_statuses": out})
		return
	}
	for _, name := range names {
		fmt.Fprintf(w, "%s::%s\n", name, bound[name])
	}
}
