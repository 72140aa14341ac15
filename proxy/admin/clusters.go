package admin

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/periplus-mesh/periplus/internal/balance"
	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
)

func (s *server) clusters(w http.ResponseWriter, r *http.Request) {
	view := s.View().Clusters()
	names := slices.Sorted(maps.Keys(view))
	if r.URL.Query().Get("format") == "json" {
		out := &adminv3.Clusters{}
		for _, name := range names {
			out.ClusterStatuses = append(out.ClusterStatuses, clusterStatus(view[name]))
		}
		writeProto(w, out)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	for _, name := range names {
		writeCluster(w, view[name])
	}
}

// healthFlags are Envoy's words, joined by "/".
func healthFlags(h *balance.Host) string {
	var flags []string
	if h.Failing() {
		flags = append(flags, "/failed_active_hc")
	}
	if h.Ejected() {
		flags = append(flags, "/failed_outlier_check")
	}
	switch h.Health {
	case balance.Unhealthy:
		flags = append(flags, "/failed_eds_health")
	case balance.Degraded:
		flags = append(flags, "/degraded_eds_health")
	}
	if len(flags) == 0 {
		return "healthy"
	}
	return strings.Join(flags, "")
}

// writeCluster has Envoy's text format: name::address::key::value.
func writeCluster(w http.ResponseWriter, c *forward.Cluster) {
	fmt.Fprintf(w, "%s::observability_name::%s\n", c.Name, c.Name)
	for i, priority := range [...]string{"default_priority", "high_priority"} {
		b := c.Settings.Breakers[i]
		fmt.Fprintf(w, "%s::%s::max_connections::%d\n", c.Name, priority, b.MaxConnections)
		fmt.Fprintf(w, "%s::%s::max_pending_requests::%d\n", c.Name, priority, b.MaxPending)
		fmt.Fprintf(w, "%s::%s::max_requests::%d\n", c.Name, priority, b.MaxRequests)
		fmt.Fprintf(w, "%s::%s::max_retries::%d\n", c.Name, priority, b.MaxRetries)
	}
	fmt.Fprintf(w, "%s::added_via_api::true\n", c.Name)
	if c.Set == nil {
		return
	}
	for _, h := range c.Set.Hosts() {
		prefix := c.Name + "::" + h.Address
		fmt.Fprintf(w, "%s::rq_active::%d\n%s::hostname::%s\n%s::health_flags::%s\n%s::weight::%d\n%s::region::%s\n%s::zone::%s\n%s::sub_zone::%s\n%s::priority::%d\n",
			prefix, h.Active(), prefix, hostname(h), prefix, healthFlags(h), prefix, h.Weight, prefix, h.Region, prefix, h.Zone, prefix, h.Subzone, prefix, h.Priority)
	}
}

func hostname(h *balance.Host) string {
	if e, ok := h.Data.(*config.Endpoint); ok {
		return e.Hostname
	}
	return ""
}

func clusterStatus(c *forward.Cluster) *adminv3.ClusterStatus {
	out := &adminv3.ClusterStatus{Name: c.Name, AddedViaApi: true, ObservabilityName: c.Name}
	if c.Settings.Discovery == config.EDS {
		out.EdsServiceName = c.Settings.EDSName
	}
	if c.Set == nil {
		return out
	}
	for _, h := range c.Set.Hosts() {
		out.HostStatuses = append(out.HostStatuses, hostStatus(h))
	}
	return out
}

func hostStatus(h *balance.Host) *adminv3.HostStatus {
	host, port, _ := net.SplitHostPort(h.Address)
	number, _ := strconv.ParseUint(port, 10, 16)
	status := &adminv3.HostHealthStatus{FailedActiveHealthCheck: h.Failing(), FailedOutlierCheck: h.Ejected()}
	switch h.Health {
	case balance.Healthy:
		status.EdsHealthStatus = corev3.HealthStatus_HEALTHY
	case balance.Degraded:
		status.EdsHealthStatus = corev3.HealthStatus_DEGRADED
	case balance.Unhealthy:
		status.EdsHealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	return &adminv3.HostStatus{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)}}}},
		Stats:        []*adminv3.SimpleMetric{{Name: "rq_active", Type: adminv3.SimpleMetric_GAUGE, Value: uint64(max(0, h.Active()))}},
		HealthStatus: status, Weight: h.Weight, Priority: uint32(h.Priority), Hostname: hostname(h),
		Locality: &corev3.Locality{Region: h.Region, Zone: h.Zone, SubZone: h.Subzone},
	}
}
