package config

import (
	"math"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// balancePolicies that can be done.
var balancePolicies = map[clusterv3.Cluster_LbPolicy]BalancePolicy{
	clusterv3.Cluster_ROUND_ROBIN: RoundRobin, clusterv3.Cluster_LEAST_REQUEST: LeastRequest,
	clusterv3.Cluster_RANDOM: Random, clusterv3.Cluster_RING_HASH: RingHash, clusterv3.Cluster_MAGLEV: Maglev,
}

func decodeBalance(p problems, pb *clusterv3.Cluster) Balance {
	policy, ok := balancePolicies[pb.GetLbPolicy()]
	if !ok {
		p.refuse("lb_policy", "%v is not supported", pb.GetLbPolicy())
	}
	common := pb.GetCommonLbConfig()
	b := Balance{
		Policy: policy, RingMin: 1024, RingMax: 8 << 20, PanicPercent: 50,
		LocalityWeighted: common.GetLocalityWeightedLbConfig() != nil,
	}
	if common.GetHealthyPanicThreshold() != nil {
		b.PanicPercent = math.Round(percent(p.in("common_lb_config"), "healthy_panic_threshold", common.GetHealthyPanicThreshold(), 50))
	}
	refuseBalanceFields(p, pb)
	b.decodeRing(p.in("ring_hash_lb_config"), pb.GetRingHashLbConfig())
	return b
}

// refuseBalanceFields: what may be set to what is done anyway is refused only if it asks for something else.
func refuseBalanceFields(p problems, pb *clusterv3.Cluster) {
	common, least := pb.GetCommonLbConfig(), pb.GetLeastRequestLbConfig()
	p.unsupported("maglev_lb_config.table_size", number64(pb.GetMaglevLbConfig().GetTableSize(), maglevSize) != maglevSize)
	p.unsupported("round_robin_lb_config.slow_start_config", pb.GetRoundRobinLbConfig().GetSlowStartConfig() != nil)
	p.unsupported("least_request_lb_config.slow_start_config", least.GetSlowStartConfig() != nil)
	p.unsupported("least_request_lb_config.choice_count", number(least.GetChoiceCount(), 2) != 2)
	p.unsupported("least_request_lb_config.active_request_bias", least.GetActiveRequestBias() != nil && least.GetActiveRequestBias().GetDefaultValue() != 1)
	p = p.in("common_lb_config")
	hashing := common.GetConsistentHashingLbConfig()
	p.unsupported("zone_aware_lb_config.fail_traffic_on_panic", common.GetZoneAwareLbConfig().GetFailTrafficOnPanic())
	p.unsupported("consistent_hashing_lb_config", hashing.GetUseHostnameForHashing() || hashing.GetHashBalanceFactor() != nil)
	p.unsupported("close_connections_on_host_set_change", common.GetCloseConnectionsOnHostSetChange())
	p.unsupported("ignore_new_hosts_until_first_hc", common.GetIgnoreNewHostsUntilFirstHc())
}

// maglevSize is what a Maglev table has; Envoy's default.
const maglevSize = 65537

func (b *Balance) decodeRing(p problems, ring *clusterv3.Cluster_RingHashLbConfig) {
	b.RingMin, b.RingMax = number64(ring.GetMinimumRingSize(), b.RingMin), number64(ring.GetMaximumRingSize(), b.RingMax)
	if b.RingMin > b.RingMax || b.RingMax > 8<<20 {
		p.refuse("minimum_ring_size", "ring size %d..%d is out of range", b.RingMin, b.RingMax)
	}
	p.unsupported("hash_function", ring.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH)
}

// percent of a field; NaN and values outside 0..100 are refused.
func percent(p problems, field string, pb *typev3.Percent, absent float64) float64 {
	if pb == nil {
		return absent
	}
	value := pb.GetValue()
	if !(value >= 0 && value <= 100) {
		p.refuse(field, "%v is not a percentage", value)
		return absent
	}
	return value
}

func decodeBreakers(p problems, pb *clusterv3.CircuitBreakers) [2]Breaker {
	standard := Breaker{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
	breakers := [2]Breaker{standard, standard}
	for i, t := range pb.GetThresholds() {
		p := p.at("thresholds", i)
		if t.GetPriority() > corev3.RoutingPriority_HIGH || t.GetPriority() < 0 {
			p.refuse("priority", "%d is not known", t.GetPriority())
			continue
		}
		b := Breaker{
			MaxConnections: number(t.GetMaxConnections(), 1024), MaxPending: number(t.GetMaxPendingRequests(), 1024),
			MaxRequests: number(t.GetMaxRequests(), 1024), MaxRetries: number(t.GetMaxRetries(), 3),
		}
		if budget := t.GetRetryBudget(); budget != nil {
			b.RetryBudgetPercent = percent(p, "retry_budget.budget_percent", budget.GetBudgetPercent(), 20)
			b.RetryBudgetMin = number(budget.GetMinRetryConcurrency(), 3)
		}
		breakers[t.GetPriority()] = b
	}
	return breakers
}

// decodeOutlier fills in Envoy's defaults (cluster/v3/outlier_detection.proto).
func decodeOutlier(p problems, pb *clusterv3.OutlierDetection) *Outlier {
	o := &Outlier{
		Consecutive5xx:                number(pb.GetConsecutive_5Xx(), 5),
		ConsecutiveGatewayFailure:     number(pb.GetConsecutiveGatewayFailure(), 5),
		ConsecutiveLocalOriginFailure: number(pb.GetConsecutiveLocalOriginFailure(), 5),
		Enforce5xx:                    number(pb.GetEnforcingConsecutive_5Xx(), 100),
		EnforceGatewayFailure:         number(pb.GetEnforcingConsecutiveGatewayFailure(), 0),
		EnforceLocalOrigin:            number(pb.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		Interval:                      p.positive("interval", pb.GetInterval(), 10*time.Second),
		BaseEjection:                  p.positive("base_ejection_time", pb.GetBaseEjectionTime(), 30*time.Second),
		MaxEjectionPercent:            number(pb.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:                boolean(pb.GetAlwaysEjectOneHost(), false),
		SplitExternalLocal:            pb.GetSplitExternalLocalOriginErrors(),
	}
	o.MaxEjection = max(o.BaseEjection, p.positive("max_ejection_time", pb.GetMaxEjectionTime(), 300*time.Second))
	refuseOutlierFields(p, pb)
	return o
}

// refuseOutlierFields: what is not ejected by is refused where somebody asks for it. Success rate is on by default, and
// in nobody's resource by name: that default is not followed.
func refuseOutlierFields(p problems, pb *clusterv3.OutlierDetection) {
	for _, field := range []struct {
		name  string
		value *wrapperspb.UInt32Value
	}{
		{"max_ejection_percent", pb.GetMaxEjectionPercent()}, {"enforcing_consecutive_5xx", pb.GetEnforcingConsecutive_5Xx()},
		{"enforcing_consecutive_gateway_failure", pb.GetEnforcingConsecutiveGatewayFailure()},
		{"enforcing_consecutive_local_origin_failure", pb.GetEnforcingConsecutiveLocalOriginFailure()},
	} {
		if v := field.value.GetValue(); v > 100 {
			p.refuse(field.name, "%d is not a percentage", v)
		}
	}
	p.unsupported("max_ejection_time_jitter", pb.GetMaxEjectionTimeJitter().AsDuration() > 0)
	p.unsupported("enforcing_success_rate", pb.GetEnforcingSuccessRate().GetValue() > 0)
	p.unsupported("enforcing_local_origin_success_rate", pb.GetEnforcingLocalOriginSuccessRate().GetValue() > 0)
	p.unsupported("enforcing_failure_percentage", pb.GetEnforcingFailurePercentage().GetValue() > 0)
	p.unsupported("enforcing_failure_percentage_local_origin", pb.GetEnforcingFailurePercentageLocalOrigin().GetValue() > 0)
	p.unsupported("monitors", len(pb.GetMonitors()) > 0)
}

func decodeHealthCheck(p problems, pb *corev3.HealthCheck) *HealthCheck {
	h := &HealthCheck{
		Timeout:            p.positive("timeout", pb.GetTimeout(), time.Second),
		Interval:           p.positive("interval", pb.GetInterval(), 10*time.Second),
		UnhealthyInterval:  p.duration("unhealthy_interval", pb.GetUnhealthyInterval(), 0),
		UnhealthyEdge:      p.duration("unhealthy_edge_interval", pb.GetUnhealthyEdgeInterval(), 0),
		HealthyEdge:        p.duration("healthy_edge_interval", pb.GetHealthyEdgeInterval(), 0),
		Jitter:             p.duration("interval_jitter", pb.GetIntervalJitter(), 0),
		InitialJitter:      p.duration("initial_jitter", pb.GetInitialJitter(), 0),
		UnhealthyThreshold: atLeastOne(pb.GetUnhealthyThreshold(), 3), HealthyThreshold: atLeastOne(pb.GetHealthyThreshold(), 1),
	}
	p.unsupported("interval_jitter_percent", pb.GetIntervalJitterPercent() > 0)
	p.unsupported("tls_options", pb.GetTlsOptions() != nil || pb.GetTransportSocketMatchCriteria() != nil)
	h.Interval = max(h.Interval, 10*time.Millisecond)
	switch {
	case pb.GetHttpHealthCheck() != nil:
		h.HTTP = decodeHTTPCheck(p.in("http_health_check"), pb.GetHttpHealthCheck())
	case pb.GetGrpcHealthCheck() != nil:
		h.GRPC, h.GRPCService = true, pb.GetGrpcHealthCheck().GetServiceName()
		p.unsupported("grpc_health_check.authority", pb.GetGrpcHealthCheck().GetAuthority() != "" || len(pb.GetGrpcHealthCheck().GetInitialMetadata()) > 0)
	case pb.GetTcpHealthCheck() != nil:
		h.decodeTCPCheck(p.in("tcp_health_check"), pb.GetTcpHealthCheck())
	default:
		p.refuse("health_checker", "must be HTTP, TCP or gRPC")
	}
	return h
}

func (h *HealthCheck) decodeTCPCheck(p problems, pb *corev3.HealthCheck_TcpHealthCheck) {
	p.unsupported("proxy_protocol_config", pb.GetProxyProtocolConfig() != nil)
	payloads := append(pb.GetReceive()[:len(pb.GetReceive()):len(pb.GetReceive())], pb.GetSend())
	for _, payload := range payloads {
		p.unsupported("text", payload.GetText() != "") // hexadecimal; nobody is known to use it
	}
	h.Send = pb.GetSend().GetBinary()
	for _, payload := range pb.GetReceive() {
		h.Receive = append(h.Receive, payload.GetBinary())
	}
}

func decodeHTTPCheck(p problems, pb *corev3.HealthCheck_HttpHealthCheck) *HTTPHealthCheck {
	h := &HTTPHealthCheck{Host: pb.GetHost(), Path: pb.GetPath(), Method: "GET", HTTP2: pb.GetCodecClientType() == typev3.CodecClientType_HTTP2}
	if pb.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = pb.GetMethod().String()
	}
	if !strings.HasPrefix(h.Path, "/") {
		p.refuse("path", "%q does not begin with /", h.Path)
	}
	h.Headers = decodeHeaderOps(p, "request_headers_to_add", pb.GetRequestHeadersToAdd())
	p.unsupported("request_headers_to_remove", len(pb.GetRequestHeadersToRemove()) > 0)
	p.unsupported("retriable_statuses", len(pb.GetRetriableStatuses()) > 0)
	p.unsupported("service_name_matcher", pb.GetServiceNameMatcher() != nil)
	p.unsupported("receive", pb.GetSend() != nil || len(pb.GetReceive()) > 0)
	p.unsupported("codec_client_type", pb.GetCodecClientType() == typev3.CodecClientType_HTTP3)
	for i, status := range pb.GetExpectedStatuses() {
		if status.GetStart() < 100 || status.GetStart() >= status.GetEnd() || status.GetEnd() > 600 {
			p.at("expected_statuses", i).refuse("start", "%d..%d is no range within 100..600", status.GetStart(), status.GetEnd())
		}
		h.Expected = append(h.Expected, IntRange{status.GetStart(), status.GetEnd()})
	}
	return h
}
