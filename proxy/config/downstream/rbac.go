package downstream

import (
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

var rbacActions = map[rbacv3.RBAC_Action]config.RBACAction{
	rbacv3.RBAC_ALLOW: config.RBACAllow, rbacv3.RBAC_DENY: config.RBACDeny, rbacv3.RBAC_LOG: config.RBACLog,
}

// decodeRBAC returns the enforced filter and the shadow one; either may be missing.
func decodeRBAC(p field.Problems, rules, shadow *rbacv3.RBAC) []*config.RBAC {
	var filters []*config.RBAC
	if rules != nil {
		filters = append(filters, decodeRules(p.In("rules"), rules))
	}
	if shadow != nil {
		filter := decodeRules(p.In("shadow_rules"), shadow)
		filter.Shadow = true
		filters = append(filters, filter)
	}
	return filters
}

func decodeRules(p field.Problems, pb *rbacv3.RBAC) *config.RBAC {
	action, ok := rbacActions[pb.GetAction()]
	if !ok {
		p.Refuse("action", "%v is not known", pb.GetAction())
	}
	filter, nodes := &config.RBAC{Action: action}, 0
	tree := conditions{nodes: &nodes}
	for name, policy := range pb.GetPolicies() {
		p := p.In("policies[" + name + "]")
		p.Unsupported("condition", policy.GetCondition() != nil || policy.GetCheckedCondition() != nil)
		rule := config.RBACPolicy{Name: name}
		if len(policy.GetPermissions()) == 0 || len(policy.GetPrincipals()) == 0 {
			p.Refuse("permissions", "or principals are empty: nothing would ever match") // which would open what was to be denied
		}
		for _, permission := range policy.GetPermissions() {
			rule.Permissions = append(rule.Permissions, tree.permission(p.In("permissions"), permission, 0))
		}
		for _, principal := range policy.GetPrincipals() {
			rule.Principals = append(rule.Principals, tree.principal(p.In("principals"), principal, 0))
		}
		filter.Policies = append(filter.Policies, rule)
	}
	slices.SortFunc(filter.Policies, func(a, b config.RBACPolicy) int { return strings.Compare(a.Name, b.Name) })
	return filter
}

// conditions bounds what one filter's trees may cost.
type conditions struct{ nodes *int }

func (t conditions) enter(p field.Problems, depth int) bool {
	*t.nodes++
	if *t.nodes > maxConditions || depth > maxDepth {
		p.Refuse("rules", "more than %d conditions, or deeper than %d", maxConditions, maxDepth)
		return false
	}
	return true
}

func (t conditions) permission(p field.Problems, pb *rbacv3.Permission, depth int) config.Condition {
	if !t.enter(p, depth) {
		return config.Condition{Kind: config.Or}
	}
	switch rule := pb.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return anything(p, rule.Any)
	case *rbacv3.Permission_AndRules:
		return t.permissions(p, config.And, rule.AndRules.GetRules(), depth)
	case *rbacv3.Permission_OrRules:
		return t.permissions(p, config.Or, rule.OrRules.GetRules(), depth)
	case *rbacv3.Permission_NotRule:
		return config.Condition{Kind: config.Not, Of: []config.Condition{t.permission(p, rule.NotRule, depth+1)}}
	case *rbacv3.Permission_Header:
		header := decodeHeader(p.In("header"), rule.Header)
		return config.Condition{Kind: config.Header, Header: &header}
	case *rbacv3.Permission_UrlPath:
		return pathCondition(p, rule.UrlPath)
	case *rbacv3.Permission_DestinationIp:
		return config.Condition{Kind: config.DestinationIP, Prefix: prefix(p.In("destination_ip"), rule.DestinationIp)}
	case *rbacv3.Permission_DestinationPort:
		return config.Condition{Kind: config.DestinationPort, Port: p.Port("destination_port", rule.DestinationPort)}
	case *rbacv3.Permission_RequestedServerName:
		return config.Condition{Kind: config.ServerName, String: decodeString(p.In("requested_server_name"), rule.RequestedServerName)}
	}
	p.Refuse("rule", "is not supported")
	return config.Condition{Kind: config.Or}
}

func (t conditions) permissions(p field.Problems, kind config.ConditionKind, rules []*rbacv3.Permission, depth int) config.Condition {
	c := config.Condition{Kind: kind}
	if len(rules) == 0 {
		p.Refuse("rules", "is empty")
	}
	for _, rule := range rules {
		c.Of = append(c.Of, t.permission(p, rule, depth+1))
	}
	return c
}

func (t conditions) principal(p field.Problems, pb *rbacv3.Principal, depth int) config.Condition {
	if !t.enter(p, depth) {
		return config.Condition{Kind: config.Or}
	}
	switch id := pb.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return anything(p, id.Any)
	case *rbacv3.Principal_AndIds:
		return t.principals(p, config.And, id.AndIds.GetIds(), depth)
	case *rbacv3.Principal_OrIds:
		return t.principals(p, config.Or, id.OrIds.GetIds(), depth)
	case *rbacv3.Principal_NotId:
		return config.Condition{Kind: config.Not, Of: []config.Condition{t.principal(p, id.NotId, depth+1)}}
	case *rbacv3.Principal_Authenticated_:
		c := config.Condition{Kind: config.Authenticated}
		if name := id.Authenticated.GetPrincipalName(); name != nil {
			c.String = decodeString(p.In("principal_name"), name)
		}
		return c
	case *rbacv3.Principal_DirectRemoteIp:
		return config.Condition{Kind: config.SourceIP, Prefix: prefix(p.In("direct_remote_ip"), id.DirectRemoteIp)}
	case *rbacv3.Principal_RemoteIp:
		return config.Condition{Kind: config.RemoteIP, Prefix: prefix(p.In("remote_ip"), id.RemoteIp)}
	case *rbacv3.Principal_SourceIp:
		return config.Condition{Kind: config.SourceIP, Prefix: prefix(p.In("source_ip"), id.SourceIp)}
	case *rbacv3.Principal_Header:
		header := decodeHeader(p.In("header"), id.Header)
		return config.Condition{Kind: config.Header, Header: &header}
	case *rbacv3.Principal_UrlPath:
		return pathCondition(p, id.UrlPath)
	}
	p.Refuse("identifier", "is not supported")
	return config.Condition{Kind: config.Or}
}

func (t conditions) principals(p field.Problems, kind config.ConditionKind, ids []*rbacv3.Principal, depth int) config.Condition {
	c := config.Condition{Kind: kind}
	if len(ids) == 0 {
		p.Refuse("ids", "is empty")
	}
	for _, id := range ids {
		c.Of = append(c.Of, t.principal(p, id, depth+1))
	}
	return c
}

// anything: "any: false" says nothing that anybody could mean (the proto demands true).
func anything(p field.Problems, value bool) config.Condition {
	if !value {
		p.Refuse("any", "must be true")
	}
	return config.Condition{Kind: config.Any}
}

func pathCondition(p field.Problems, pb *matcherv3.PathMatcher) config.Condition {
	return config.Condition{Kind: config.Path, String: decodeString(p.In("url_path.path"), pb.GetPath())}
}

// prefix cuts off bits beyond the prefix length, as Envoy does.
func prefix(p field.Problems, pb *corev3.CidrRange) netip.Prefix {
	address, err := netip.ParseAddr(pb.GetAddressPrefix())
	if err != nil {
		p.Refuse("address_prefix", "%q is not an IP address", pb.GetAddressPrefix())
		return netip.Prefix{}
	}
	cut, err := address.WithZone("").Prefix(int(min(pb.GetPrefixLen().GetValue(), 129)))
	if err != nil {
		p.Refuse("prefix_len", "%d is out of range", pb.GetPrefixLen().GetValue())
	}
	return cut
}
