package upstream

import (
	"math"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

// balancePolicies that can be done.
var balancePolicies = map[clusterv3.Cluster_LbPolicy]config.BalancePolicy{
	clusterv3.Cluster_ROUND_ROBIN: config.RoundRobin, clusterv3.Cluster_LEAST_REQUEST: config.LeastRequest,
	clusterv3.Cluster_RANDOM: config.Random, clusterv3.Cluster_RING_HASH: config.RingHash, clusterv3.Cluster_MAGLEV: config.Maglev,
}

func decodeBalance(p field.Problems, pb *clusterv3.Cluster) config.Balance {
	policy, ok := balancePolicies[pb.GetLbPolicy()]
	if !ok {
		p.Refuse("lb_policy", "%v is not supported", pb.GetLbPolicy())
	}
	common := pb.GetCommonLbConfig()
	b := config.Balance{
		Policy: policy, RingMin: 1024, RingMax: 8 << 20, PanicPercent: 50,
		LocalityWeighted: common.GetLocalityWeightedLbConfig() != nil,
	}
	if common.GetHealthyPanicThreshold() != nil {
		b.PanicPercent = math.Round(p.In("common_lb_config").Percent("healthy_panic_threshold", common.GetHealthyPanicThreshold(), 50))
	}
	refuseBalanceFields(p, pb)
	decodeRing(&b, p.In("ring_hash_lb_config"), pb.GetRingHashLbConfig())
	return b
}

// refuseBalanceFields: what may be set to what is done anyway is refused only if it asks for something else.
func refuseBalanceFields(p field.Problems, pb *clusterv3.Cluster) {
	common, least := pb.GetCommonLbConfig(), pb.GetLeastRequestLbConfig()
	p.Unsupported("maglev_lb_config.table_size", field.Number64(pb.GetMaglevLbConfig().GetTableSize(), maglevSize) != maglevSize)
	p.Unsupported("round_robin_lb_config.slow_start_config", pb.GetRoundRobinLbConfig().GetSlowStartConfig() != nil)
	p.Unsupported("least_request_lb_config.slow_start_config", least.GetSlowStartConfig() != nil)
	p.Unsupported("least_request_lb_config.choice_count", field.Number(least.GetChoiceCount(), 2) != 2)
	p.Unsupported("least_request_lb_config.active_request_bias", least.GetActiveRequestBias() != nil && least.GetActiveRequestBias().GetDefaultValue() != 1)
	p = p.In("common_lb_config")
	hashing := common.GetConsistentHashingLbConfig()
	p.Unsupported("zone_aware_lb_config.fail_traffic_on_panic", common.GetZoneAwareLbConfig().GetFailTrafficOnPanic())
	p.Unsupported("consistent_hashing_lb_config", hashing.GetUseHostnameForHashing() || hashing.GetHashBalanceFactor() != nil)
	p.Unsupported("close_connections_on_host_set_change", common.GetCloseConnectionsOnHostSetChange())
	p.Unsupported("ignore_new_hosts_until_first_hc", common.GetIgnoreNewHostsUntilFirstHc())
}

// maglevSize is what a Maglev table has; Envoy's default.
const maglevSize = 65537

func decodeRing(b *config.Balance, p field.Problems, ring *clusterv3.Cluster_RingHashLbConfig) {
	b.RingMin, b.RingMax = field.Number64(ring.GetMinimumRingSize(), b.RingMin), field.Number64(ring.GetMaximumRingSize(), b.RingMax)
	if b.RingMin > b.RingMax || b.RingMax > 8<<20 {
		p.Refuse("minimum_ring_size", "ring size %d..%d is out of range", b.RingMin, b.RingMax)
	}
	p.Unsupported("hash_function", ring.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH)
}

func decodeBreakers(p field.Problems, pb *clusterv3.CircuitBreakers) [2]config.Breaker {
	standard := config.Breaker{MaxConnections: 1024, MaxPending: 1024, MaxRequests: 1024, MaxRetries: 3}
	breakers := [2]config.Breaker{standard, standard}
	for i, t := range pb.GetThresholds() {
		p := p.At("thresholds", i)
		if t.GetPriority() > corev3.RoutingPriority_HIGH || t.GetPriority() < 0 {
			p.Refuse("priority", "%d is not known", t.GetPriority())
			continue
		}
		b := config.Breaker{
			MaxConnections: field.Number(t.GetMaxConnections(), 1024), MaxPending: field.Number(t.GetMaxPendingRequests(), 1024),
			MaxRequests: field.Number(t.GetMaxRequests(), 1024), MaxRetries: field.Number(t.GetMaxRetries(), 3),
		}
		if budget := t.GetRetryBudget(); budget != nil {
			b.RetryBudgetPercent = p.Percent("retry_budget.budget_percent", budget.GetBudgetPercent(), 20)
			b.RetryBudgetMin = field.Number(budget.GetMinRetryConcurrency(), 3)
		}
		breakers[t.GetPriority()] = b
	}
	return breakers
}

// decodeOutlier fills in Envoy's defaults (cluster/v3/outlier_detection.proto).
func decodeOutlier(p field.Problems, pb *clusterv3.OutlierDetection) *config.Outlier {
	o := &config.Outlier{
		Consecutive5xx:                field.Number(pb.GetConsecutive_5Xx(), 5),
		ConsecutiveGatewayFailure:     field.Number(pb.GetConsecutiveGatewayFailure(), 5),
		ConsecutiveLocalOriginFailure: field.Number(pb.GetConsecutiveLocalOriginFailure(), 5),
		Enforce5xx:                    field.Number(pb.GetEnforcingConsecutive_5Xx(), 100),
		EnforceGatewayFailure:         field.Number(pb.GetEnforcingConsecutiveGatewayFailure(), 0),
		EnforceLocalOrigin:            field.Number(pb.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		Interval:                      p.Positive("interval", pb.GetInterval(), 10*time.Second),
		BaseEjection:                  p.Positive("base_ejection_time", pb.GetBaseEjectionTime(), 30*time.Second),
		MaxEjectionPercent:            field.Number(pb.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:                field.Boolean(pb.GetAlwaysEjectOneHost(), false),
		SplitExternalLocal:            pb.GetSplitExternalLocalOriginErrors(),
	}
	o.MaxEjection = max(o.BaseEjection, p.Positive("max_ejection_time", pb.GetMaxEjectionTime(), 300*time.Second))
	refuseOutlierFields(p, pb)
	return o
}

// refuseOutlierFields: what is not ejected by is refused where somebody asks for it. Success rate is on by default, and
// in nobody's resource by name: that default is not followed.
func refuseOutlierFields(p field.Problems, pb *clusterv3.OutlierDetection) {
	for _, percentage := range []struct {
		name  string
		value *wrapperspb.UInt32Value
	}{
		{"max_ejection_percent", pb.GetMaxEjectionPercent()}, {"enforcing_consecutive_5xx", pb.GetEnforcingConsecutive_5Xx()},
		{"enforcing_consecutive_gateway_failure", pb.GetEnforcingConsecutiveGatewayFailure()},
		{"enforcing_consecutive_local_origin_failure", pb.GetEnforcingConsecutiveLocalOriginFailure()},
	} {
		if v := percentage.value.GetValue(); v > 100 {
			p.Refuse(percentage.name, "%d is not a percentage", v)
		}
	}
	p.Unsupported("max_ejection_time_jitter", pb.GetMaxEjectionTimeJitter().AsDuration() > 0)
	p.Unsupported("enforcing_success_rate", pb.GetEnforcingSuccessRate().GetValue() > 0)
	p.Unsupported("enforcing_local_origin_success_rate", pb.GetEnforcingLocalOriginSuccessRate().GetValue() > 0)
	p.Unsupported("enforcing_failure_percentage", pb.GetEnforcingFailurePercentage().GetValue() > 0)
	p.Unsupported("enforcing_failure_percentage_local_origin", pb.GetEnforcingFailurePercentageLocalOrigin().GetValue() > 0)
	p.Unsupported("monitors", len(pb.GetMonitors()) > 0)
}

func decodeHealthCheck(p field.Problems, pb *corev3.HealthCheck) *config.HealthCheck {
	h := &config.HealthCheck{
		Timeout:            p.Positive("timeout", pb.GetTimeout(), time.Second),
		Interval:           p.Positive("interval", pb.GetInterval(), 10*time.Second),
		UnhealthyInterval:  p.Duration("unhealthy_interval", pb.GetUnhealthyInterval(), 0),
		UnhealthyEdge:      p.Duration("unhealthy_edge_interval", pb.GetUnhealthyEdgeInterval(), 0),
		HealthyEdge:        p.Duration("healthy_edge_interval", pb.GetHealthyEdgeInterval(), 0),
		Jitter:             p.Duration("interval_jitter", pb.GetIntervalJitter(), 0),
		InitialJitter:      p.Duration("initial_jitter", pb.GetInitialJitter(), 0),
		UnhealthyThreshold: field.AtLeastOne(pb.GetUnhealthyThreshold(), 3), HealthyThreshold: field.AtLeastOne(pb.GetHealthyThreshold(), 1),
	}
	p.Unsupported("interval_jitter_percent", pb.GetIntervalJitterPercent() > 0)
	p.Unsupported("tls_options", pb.GetTlsOptions() != nil || pb.GetTransportSocketMatchCriteria() != nil)
	h.Interval = max(h.Interval, 10*time.Millisecond)
	switch {
	case pb.GetHttpHealthCheck() != nil:
		h.HTTP = decodeHTTPCheck(p.In("http_health_check"), pb.GetHttpHealthCheck())
	case pb.GetGrpcHealthCheck() != nil:
		h.GRPC, h.GRPCService = true, pb.GetGrpcHealthCheck().GetServiceName()
		p.Unsupported("grpc_health_check.authority", pb.GetGrpcHealthCheck().GetAuthority() != "" || len(pb.GetGrpcHealthCheck().GetInitialMetadata()) > 0)
	case pb.GetTcpHealthCheck() != nil:
		decodeTCPCheck(h, p.In("tcp_health_check"), pb.GetTcpHealthCheck())
	default:
		p.Refuse("health_checker", "must be HTTP, TCP or gRPC")
	}
	return h
}

func decodeTCPCheck(h *config.HealthCheck, p field.Problems, pb *corev3.HealthCheck_TcpHealthCheck) {
	p.Unsupported("proxy_protocol_config", pb.GetProxyProtocolConfig() != nil)
	payloads := append(pb.GetReceive()[:len(pb.GetReceive()):len(pb.GetReceive())], pb.GetSend())
	for _, payload := range payloads {
		p.Unsupported("text", payload.GetText() != "") // hexadecimal; nobody is known to use it
	}
	h.Send = pb.GetSend().GetBinary()
	for _, payload := range pb.GetReceive() {
		h.Receive = append(h.Receive, payload.GetBinary())
	}
}

func decodeHTTPCheck(p field.Problems, pb *corev3.HealthCheck_HttpHealthCheck) *config.HTTPHealthCheck {
	h := &config.HTTPHealthCheck{Host: pb.GetHost(), Path: pb.GetPath(), Method: "GET", HTTP2: pb.GetCodecClientType() == typev3.CodecClientType_HTTP2}
	if pb.GetMethod() != corev3.RequestMethod_METHOD_UNSPECIFIED {
		h.Method = pb.GetMethod().String()
	}
	if !strings.HasPrefix(h.Path, "/") {
		p.Refuse("path", "%q does not begin with /", h.Path)
	}
	h.Headers = field.HeaderOps(p, "request_headers_to_add", pb.GetRequestHeadersToAdd())
	p.Unsupported("request_headers_to_remove", len(pb.GetRequestHeadersToRemove()) > 0)
	p.Unsupported("retriable_statuses", len(pb.GetRetriableStatuses()) > 0)
	p.Unsupported("service_name_matcher", pb.GetServiceNameMatcher() != nil)
	p.Unsupported("receive", pb.GetSend() != nil || len(pb.GetReceive()) > 0)
	p.Unsupported("codec_client_type", pb.GetCodecClientType() == typev3.CodecClientType_HTTP3)
	for i, status := range pb.GetExpectedStatuses() {
		if status.GetStart() < 100 || status.GetStart() >= status.GetEnd() || status.GetEnd() > 600 {
			p.At("expected_statuses", i).Refuse("start", "%d..%d is no range within 100..600", status.GetStart(), status.GetEnd())
		}
		h.Expected = append(h.Expected, config.IntRange{Start: status.GetStart(), End: status.GetEnd()})
	}
	return h
}
