package config

import (
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
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
	common, least := pb.GetCommonLbConfig(), pb.GetLeastRequestLbConfig()
	b := Balance{
		Policy: policy, ChoiceCount: max(2, least.GetChoiceCount().GetValue()), ActiveRequestBias: 1,
		RingMin: 1024, RingMax: 8 << 20, TableSize: 65537, PanicPercent: 50,
		LocalityWeighted: common.GetLocalityWeightedLbConfig() != nil,
		FailOnPanic:      common.GetZoneAwareLbConfig().GetFailTrafficOnPanic(),
		HashHostname:     common.GetConsistentHashingLbConfig().GetUseHostnameForHashing(),
	}
	if common.GetHealthyPanicThreshold() != nil {
		b.PanicPercent = percent(p.in("common_lb_config"), "healthy_panic_threshold", common.GetHealthyPanicThreshold(), 50)
	}
	if bias := least.GetActiveRequestBias(); bias != nil {
		b.ActiveRequestBias = bias.GetDefaultValue()
	}
	b.decodeHashing(p, pb)
	slow := pb.GetRoundRobinLbConfig().GetSlowStartConfig()
	if policy == LeastRequest {
		slow = least.GetSlowStartConfig()
	}
	b.slowStart(p.in("slow_start_config"), slow)
	return b
}

func (b *Balance) decodeHashing(p problems, pb *clusterv3.Cluster) {
	ring := pb.GetRingHashLbConfig()
	if ring.GetMinimumRingSize() != nil {
		b.RingMin = ring.GetMinimumRingSize().GetValue()
	}
	if ring.GetMaximumRingSize() != nil {
		b.RingMax = ring.GetMaximumRingSize().GetValue()
	}
	if b.RingMin > b.RingMax || b.RingMax > 8<<20 {
		p.refuse("ring_hash_lb_config", "ring size %d..%d is out of range", b.RingMin, b.RingMax)
	}
	p.in("ring_hash_lb_config").unsupported("hash_function", ring.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH)
	if size := pb.GetMaglevLbConfig().GetTableSize(); size != nil {
		b.TableSize = size.GetValue()
	}
	if b.TableSize > 5_000_011 || !prime(b.TableSize) {
		p.refuse("maglev_lb_config.table_size", "%d is not a prime up to 5000011", b.TableSize)
	}
}

func prime(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n >= 2
}

func (b *Balance) slowStart(p problems, pb *clusterv3.Cluster_SlowStartConfig) {
	b.SlowStartMin, b.SlowStartBias = 10, 1
	if pb == nil {
		return
	}
	b.SlowStart = p.duration("slow_start_window", pb.GetSlowStartWindow(), 0)
	b.SlowStartMin = percent(p, "min_weight_percent", pb.GetMinWeightPercent(), 10)
	if aggression := pb.GetAggression(); aggression != nil {
		b.SlowStartBias = aggression.GetDefaultValue()
	}
	if !(b.SlowStartBias > 0) {
		p.refuse("aggression", "must be above 0")
	}
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
		MaxEjectionJitter:             p.duration("max_ejection_time_jitter", pb.GetMaxEjectionTimeJitter(), 0),
		MaxEjectionPercent:            number(pb.GetMaxEjectionPercent(), 10),
		AlwaysEjectOne:                boolean(pb.GetAlwaysEjectOneHost(), false),
		SplitExternalLocal:            pb.GetSplitExternalLocalOriginErrors(),
		EnforceSuccessRate:            number(pb.GetEnforcingSuccessRate(), 100),
		SuccessRateMinHosts:           number(pb.GetSuccessRateMinimumHosts(), 5),
		SuccessRateVolume:             number(pb.GetSuccessRateRequestVolume(), 100),
		StdevFactor:                   number(pb.GetSuccessRateStdevFactor(), 1900),
		EnforceFailurePercent:         number(pb.GetEnforcingFailurePercentage(), 0),
		FailurePercentThreshold:       number(pb.GetFailurePercentageThreshold(), 85),
		FailurePercentMinHosts:        number(pb.GetFailurePercentageMinimumHosts(), 5),
		FailurePercentVolume:          number(pb.GetFailurePercentageRequestVolume(), 50),
	}
	o.MaxEjection = max(o.BaseEjection, p.positive("max_ejection_time", pb.GetMaxEjectionTime(), 300*time.Second))
	for field, v := range map[string]uint32{"max_ejection_percent": o.MaxEjectionPercent, "enforcing_consecutive_5xx": o.Enforce5xx,
		"enforcing_success_rate": o.EnforceSuccessRate, "enforcing_failure_percentage": o.EnforceFailurePercent} {
		if v > 100 {
			p.refuse(field, "%d is not a percentage", v)
		}
	}
	return o
}

func decodeHealthCheck(p problems, pb *corev3.HealthCheck) *HealthCheck {
	h := &HealthCheck{
		Timeout:            p.positive("timeout", pb.GetTimeout(), time.Second),
		Interval:           p.positive("interval", pb.GetInterval(), 10*time.Second),
		NoTrafficInterval:  p.duration("no_traffic_interval", pb.GetNoTrafficInterval(), 0),
		UnhealthyInterval:  p.duration("unhealthy_interval", pb.GetUnhealthyInterval(), 0),
		UnhealthyEdge:      p.duration("unhealthy_edge_interval", pb.GetUnhealthyEdgeInterval(), 0),
		HealthyEdge:        p.duration("healthy_edge_interval", pb.GetHealthyEdgeInterval(), 0),
		Jitter:             p.duration("interval_jitter", pb.GetIntervalJitter(), 0),
		InitialJitter:      p.duration("initial_jitter", pb.GetInitialJitter(), 0),
		UnhealthyThreshold: atLeastOne(pb.GetUnhealthyThreshold(), 3), HealthyThreshold: atLeastOne(pb.GetHealthyThreshold(), 1),
		AlwaysLog: pb.GetAlwaysLogHealthCheckFailures(),
	}
	h.Interval = max(h.Interval, 10*time.Millisecond)
	switch {
	case pb.GetHttpHealthCheck() != nil:
		h.HTTP = decodeHTTPCheck(p.in("http_health_check"), pb.GetHttpHealthCheck())
	case pb.GetGrpcHealthCheck() != nil:
		h.GRPC, h.GRPCService = true, pb.GetGrpcHealthCheck().GetServiceName()
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
	for _, status := range pb.GetExpectedStatuses() {
		h.Expected = append(h.Expected, IntRange{status.GetStart(), status.GetEnd()})
	}
	return h
}
