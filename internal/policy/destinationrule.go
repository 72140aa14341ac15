package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	istio "istio.io/api/networking/v1alpha3"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

var trafficPolicyFields = []string{
	"loadBalancer.simple",
	"loadBalancer.consistentHash.httpHeaderName", "loadBalancer.consistentHash.httpCookie.name", "loadBalancer.consistentHash.useSourceIp",
	"loadBalancer.consistentHash.httpQueryParameterName", "loadBalancer.consistentHash.ringHash.minimumRingSize",
	"loadBalancer.consistentHash.maglev", "loadBalancer.consistentHash.minimumRingSize",
	"loadBalancer.localityLbSetting",
	"connectionPool.tcp.maxConnections", "connectionPool.tcp.connectTimeout",
	"connectionPool.http.http1MaxPendingRequests", "connectionPool.http.http2MaxRequests", "connectionPool.http.maxRequestsPerConnection",
	"connectionPool.http.maxRetries", "connectionPool.http.idleTimeout",
	"outlierDetection.consecutive5xxErrors", "outlierDetection.consecutiveGatewayErrors", "outlierDetection.interval",
	"outlierDetection.baseEjectionTime", "outlierDetection.maxEjectionPercent", "outlierDetection.minHealthPercent",
}

var destinationRule = kind{
	name: mesh.KindDestinationRule, group: "networking.istio.io", versions: []string{"v1", "v1beta1", "v1alpha3"},
	message: func() proto.Message { return new(istio.DestinationRule) },
	supported: concat([]string{"host", "subsets.name", "subsets.labels"},
		under("trafficPolicy", trafficPolicyFields...), under("subsets.trafficPolicy", trafficPolicyFields...),
		under("trafficPolicy.portLevelSettings", append(trafficPolicyFields, "port.number")...)),
	cures: map[string]string{
		"tls":         "remove it: traffic between sidecars is always mTLS, and the identity is checked",
		"idleTimeout": "remove it; what is idle is limited for HTTP alone, by connectionPool.http.idleTimeout",
		"exportTo":    "remove it, or confine the policy with the annotation " + ScopeAnnotation,
	},
	convert: func(d *document, m proto.Message) mesh.PolicySpec {
		return d.destinationRule(m.(*istio.DestinationRule))
	},
}

func under(prefix string, fields ...string) (out []string) {
	for _, f := range fields {
		out = append(out, prefix+"."+f)
	}
	return out
}

func concat(lists ...[]string) (out []string) {
	for _, l := range lists {
		out = append(out, l...)
	}
	return out
}

func (d *document) destinationRule(r *istio.DestinationRule) *mesh.DestinationRule {
	out := &mesh.DestinationRule{Host: d.host("spec.host", r.GetHost())}
	if p := r.GetTrafficPolicy(); p != nil {
		out.Traffic = d.trafficPolicy("spec.trafficPolicy", p.GetLoadBalancer(), p.GetConnectionPool(), p.GetOutlierDetection())
	}
	for i, p := range r.GetTrafficPolicy().GetPortLevelSettings() {
		path := fmt.Sprintf("spec.trafficPolicy.portLevelSettings[%d]", i)
		if out.Ports == nil {
			out.Ports = map[uint16]mesh.TrafficPolicy{}
		}
		out.Ports[d.port(path+".port", p.GetPort().GetNumber())] = d.trafficPolicy(path, p.GetLoadBalancer(), p.GetConnectionPool(), p.GetOutlierDetection())
	}
	seen := map[string]bool{}
	for i, s := range r.GetSubsets() {
		path := fmt.Sprintf("spec.subsets[%d]", i)
		if s.GetName() == "" || seen[s.GetName()] {
			d.fault(path+".name", fmt.Sprintf("%q is empty or given twice", s.GetName()), "give every subset a name of its own")
		}
		if s.GetName() != "" && !label.MatchString(s.GetName()) { // it is part of a server name
			d.fault(path+".name", fmt.Sprintf("%q is not an RFC 1123 label", s.GetName()), "use lower-case letters, digits and '-', at most 63")
		}
		seen[s.GetName()] = true
		out.Subsets = append(out.Subsets, d.subset(path, s))
	}
	return out
}

func (d *document) subset(path string, s *istio.Subset) mesh.Subset {
	out := mesh.Subset{Name: s.GetName(), Labels: s.GetLabels()}
	if p := s.GetTrafficPolicy(); p != nil {
		traffic := d.trafficPolicy(path+".trafficPolicy", p.GetLoadBalancer(), p.GetConnectionPool(), p.GetOutlierDetection())
		out.Traffic = &traffic
	}
	return out
}

func (d *document) port(path string, n uint32) uint16 {
	if n == 0 || n > 65535 {
		d.fault(path, fmt.Sprintf("port %d is outside 1..65535", n), "give a port number")
	}
	return uint16(n)
}

func (d *document) trafficPolicy(path string, lb *istio.LoadBalancerSettings, pool *istio.ConnectionPoolSettings, outlier *istio.OutlierDetection) (out mesh.TrafficPolicy) {
	if lb != nil {
		out.LoadBalancer = d.loadBalancer(path+".loadBalancer", lb)
	}
	if pool != nil {
		out.ConnectionPool = d.connectionPool(path+".connectionPool", pool)
	}
	if outlier != nil {
		out.OutlierDetection = d.outlierDetection(path+".outlierDetection", outlier)
	}
	return out
}

var algorithms = map[istio.LoadBalancerSettings_SimpleLB]mesh.LoadBalancerAlgorithm{
	istio.LoadBalancerSettings_UNSPECIFIED: mesh.LeastRequest, istio.LoadBalancerSettings_LEAST_REQUEST: mesh.LeastRequest,
	istio.LoadBalancerSettings_LEAST_CONN: mesh.LeastRequest, istio.LoadBalancerSettings_RANDOM: mesh.Random,
	istio.LoadBalancerSettings_ROUND_ROBIN: mesh.RoundRobin,
}

func (d *document) loadBalancer(path string, lb *istio.LoadBalancerSettings) *mesh.LoadBalancer {
	out := &mesh.LoadBalancer{}
	if hash := lb.GetConsistentHash(); hash != nil {
		d.consistentHash(path+".consistentHash", hash, out)
	} else if algorithm, ok := algorithms[lb.GetSimple()]; ok {
		out.Algorithm = algorithm
	} else {
		d.fault(path+".simple", fmt.Sprintf("%s is not supported", lb.GetSimple()), "use LEAST_REQUEST, ROUND_ROBIN or RANDOM")
	}
	if l := lb.GetLocalityLbSetting(); l != nil {
		out.Locality = d.locality(path+".localityLbSetting", l)
	}
	return out
}

func (d *document) consistentHash(path string, hash *istio.LoadBalancerSettings_ConsistentHashLB, out *mesh.LoadBalancer) {
	out.Algorithm = mesh.RingHash
	if hash.GetMaglev() != nil {
		out.Algorithm = mesh.Maglev
	}
	if hash.GetMaglev().GetTableSize() != 0 {
		d.fault(path+".maglev.tableSize", "is not supported", "remove it; the table has 65537 entries")
	}
	out.MinimumRingSize = max(hash.GetRingHash().GetMinimumRingSize(), hash.GetMinimumRingSize())
	if out.MinimumRingSize > 8<<20 {
		d.fault(path+".ringHash", fmt.Sprintf("ring of %d entries, at most 8388608", out.MinimumRingSize), "use a smaller ring")
	}
	out.HashOn = &mesh.HashKey{
		Header: hash.GetHttpHeaderName(), Cookie: hash.GetHttpCookie().GetName(), Query: hash.GetHttpQueryParameterName(), SourceIP: hash.GetUseSourceIp(),
	}
	if *out.HashOn == (mesh.HashKey{}) {
		d.fault(path, "no key to hash on", "set httpHeaderName, httpCookie, httpQueryParameterName or useSourceIp")
	}
}

func (d *document) locality(path string, l *istio.LocalityLoadBalancerSetting) *mesh.LocalityBalance {
	out := &mesh.LocalityBalance{FailoverPriority: l.GetFailoverPriority()}
	out.Disabled = l.GetEnabled() != nil && !l.GetEnabled().GetValue()
	if len(l.GetDistribute()) > 0 && len(l.GetFailover())+len(l.GetFailoverPriority()) > 0 {
		d.fault(path, "distribute excludes failover and failoverPriority", "keep one of them")
	}
	for i, f := range l.GetFailover() {
		if !isRegion(f.GetFrom()) || !isRegion(f.GetTo()) || f.GetFrom() == f.GetTo() {
			d.fault(fmt.Sprintf("%s.failover[%d]", path, i), "from and to must be two regions", "name the region that overflows and the one that takes it")
		}
		out.Failover = append(out.Failover, mesh.RegionFailover{From: f.GetFrom(), To: f.GetTo()})
	}
	for i, r := range l.GetDistribute() {
		sum := uint32(0)
		for _, percent := range r.GetTo() {
			sum += percent
		}
		at := fmt.Sprintf("%s.distribute[%d]", path, i)
		if sum != 100 {
			d.fault(at, fmt.Sprintf("the weights sum to %d", sum), "weights must sum to 100")
		}
		for _, pattern := range append(slices.Sorted(maps.Keys(r.GetTo())), r.GetFrom()) {
			if !isLocalityPattern(pattern) {
				d.fault(at, fmt.Sprintf("%q is not a locality", pattern), "write region, region/zone or region/zone/subzone, the last part of which may be '*'")
			}
		}
		out.Distribute = append(out.Distribute, mesh.Distribute{From: r.GetFrom(), To: r.GetTo()})
	}
	return out
}

func isRegion(text string) bool {
	l, err := mesh.ParseLocality(text)
	return err == nil && l == mesh.Locality{Region: text} && text != ""
}

// isLocalityPattern: '*' stands for all that is left, so nothing may follow it (Istio).
func isLocalityPattern(text string) bool {
	text, any := strings.CutSuffix(text, "*")
	if any && text == "" {
		return true
	}
	if any {
		var ok bool
		if text, ok = strings.CutSuffix(text, "/"); !ok || strings.Count(text, "/") > 1 {
			return false
		}
	}
	l, err := mesh.ParseLocality(text)
	return err == nil && l.String() == text && text != ""
}

func (d *document) duration(path string, v *durationpb.Duration) time.Duration {
	if v == nil {
		return 0
	}
	if v.CheckValid() != nil || v.AsDuration() < time.Millisecond {
		d.fault(path, "is not a duration of at least 1ms", "write for example 500ms, 3s or 1m")
	}
	return v.AsDuration()
}

func (d *document) count(path string, n int32) uint32 {
	if n < 0 {
		d.fault(path, fmt.Sprintf("%d is negative", n), "give a number from 0; 0 means the default")
	}
	return uint32(n)
}

func (d *document) connectionPool(path string, p *istio.ConnectionPoolSettings) *mesh.ConnectionPool {
	out := &mesh.ConnectionPool{
		MaxConnections:           d.count(path+".tcp.maxConnections", p.GetTcp().GetMaxConnections()),
		ConnectTimeout:           d.duration(path+".tcp.connectTimeout", p.GetTcp().GetConnectTimeout()),
		IdleTimeout:              d.duration(path+".http.idleTimeout", p.GetHttp().GetIdleTimeout()),
		MaxPendingRequests:       d.count(path+".http.http1MaxPendingRequests", p.GetHttp().GetHttp1MaxPendingRequests()),
		MaxRequests:              d.count(path+".http.http2MaxRequests", p.GetHttp().GetHttp2MaxRequests()),
		MaxRequestsPerConnection: d.count(path+".http.maxRequestsPerConnection", p.GetHttp().GetMaxRequestsPerConnection()),
		MaxRetries:               d.count(path+".http.maxRetries", p.GetHttp().GetMaxRetries()),
	}
	return out
}

func (d *document) outlierDetection(path string, o *istio.OutlierDetection) *mesh.OutlierDetection {
	out := &mesh.OutlierDetection{
		Consecutive5xx:           consecutive5xx(o),
		ConsecutiveGatewayErrors: o.GetConsecutiveGatewayErrors().GetValue(),
		Interval:                 d.duration(path+".interval", o.GetInterval()),
		BaseEjectionTime:         d.duration(path+".baseEjectionTime", o.GetBaseEjectionTime()),
		MaxEjectionPercent:       d.count(path+".maxEjectionPercent", o.GetMaxEjectionPercent()),
		MinHealthPercent:         d.count(path+".minHealthPercent", o.GetMinHealthPercent()),
	}
	if out.MaxEjectionPercent > 100 || out.MinHealthPercent > 100 {
		d.fault(path, "a percentage is above 100", "give 0 to 100")
	}
	return out
}

// consecutive5xx is the number of errors that eject an endpoint; not given: the default. 0 turns the detection off (Istio),
// which is a number that is never reached: the mesh's own 0 is the default.
func consecutive5xx(o *istio.OutlierDetection) uint32 {
	n := o.GetConsecutive_5XxErrors()
	if n != nil && n.GetValue() == 0 {
		return math.MaxUint32
	}
	return n.GetValue()
}
