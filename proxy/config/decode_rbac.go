package config

import (
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

var rbacActions = map[rbacv3.RBAC_Action]RBACAction{
	rbacv3.RBAC_ALLOW: RBACAllow, rbacv3.RBAC_DENY: RBACDeny, rbacv3.RBAC_LOG: RBACLog,
}

// decodeRBAC returns the enforced filter and the shadow one; either may be missing.
func decodeRBAC(p problems, rules, shadow *rbacv3.RBAC) []*RBAC {
	var filters []*RBAC
	if rules != nil {
		filters = append(filters, decodeRules(p.in("rules"), rules))
	}
	if shadow != nil {
		filter := decodeRules(p.in("shadow_rules"), shadow)
		filter.Shadow = true
		filters = append(filters, filter)
	}
	return filters
}

func decodeRules(p problems, pb *rbacv3.RBAC) *RBAC {
	action, ok := rbacActions[pb.GetAction()]
	if !ok {
		p.refuse("action", "%v is not known", pb.GetAction())
	}
	filter, nodes := &RBAC{Action: action}, 0
	tree := conditions{nodes: &nodes}
	for name, policy := range pb.GetPolicies() {
		p := p.in("policies[" + name + "]")
		p.unsupported("condition", policy.GetCondition() != nil || policy.GetCheckedCondition() != nil)
		rule := RBACPolicy{Name: name}
		if len(policy.GetPermissions()) == 0 || len(policy.GetPrincipals()) == 0 {
			p.refuse("permissions", "or principals are empty: nothing would ever match") // which would open what was to be denied
		}
		for _, permission := range policy.GetPermissions() {
			rule.Permissions = append(rule.Permissions, tree.permission(p.in("permissions"), permission, 0))
		}
		for _, principal := range policy.GetPrincipals() {
			rule.Principals = append(rule.Principals, tree.principal(p.in("principals"), principal, 0))
		}
		filter.Policies = append(filter.Policies, rule)
	}
	slices.SortFunc(filter.Policies, func(a, b RBACPolicy) int { return strings.Compare(a.Name, b.Name) })
	return filter
}

// conditions bounds what one filter's trees may cost.
type conditions struct{ nodes *int }

func (t conditions) enter(p problems, depth int) bool {
	*t.nodes++
	if *t.nodes > maxConditions || depth > maxDepth {
		p.refuse("rules", "more than %d conditions, or deeper than %d", maxConditions, maxDepth)
		return false
	}
	return true
}

func (t conditions) permission(p problems, pb *rbacv3.Permission, depth int) Condition {
	if !t.enter(p, depth) {
		return Condition{Kind: Or}
	}
	switch rule := pb.GetRule().(type) {
	case *rbacv3.Permission_Any:
		return anything(p, rule.Any)
	case *rbacv3.Permission_AndRules:
		return t.permissions(p, And, rule.AndRules.GetRules(), depth)
	case *rbacv3.Permission_OrRules:
		return t.permissions(p, Or, rule.OrRules.GetRules(), depth)
	case *rbacv3.Permission_NotRule:
		return Condition{Kind: Not, Of: []Condition{t.permission(p, rule.NotRule, depth+1)}}
	case *rbacv3.Permission_Header:
		header := decodeHeader(p.in("header"), rule.Header)
		return Condition{Kind: Header, Header: &header}
	case *rbacv3.Permission_UrlPath:
		return pathCondition(p, rule.UrlPath)
	case *rbacv3.Permission_DestinationIp:
		return Condition{Kind: DestinationIP, Prefix: prefix(p.in("destination_ip"), rule.DestinationIp)}
	case *rbacv3.Permission_DestinationPort:
		return Condition{Kind: DestinationPort, Port: p.port("destination_port", rule.DestinationPort)}
	case *rbacv3.Permission_RequestedServerName:
		return Condition{Kind: ServerName, String: decodeString(p.in("requested_server_name"), rule.RequestedServerName)}
	}
	p.refuse("rule", "is not supported")
	return Condition{Kind: Or}
}

func (t conditions) permissions(p problems, kind ConditionKind, rules []*rbacv3.Permission, depth int) Condition {
	c := Condition{Kind: kind}
	if len(rules) == 0 {
		p.refuse("rules", "is empty")
	}
	for _, rule := range rules {
		c.Of = append(c.Of, t.permission(p, rule, depth+1))
	}
	return c
}

func (t conditions) principal(p problems, pb *rbacv3.Principal, depth int) Condition {
	if !t.enter(p, depth) {
		return Condition{Kind: Or}
	}
	switch id := pb.GetIdentifier().(type) {
	case *rbacv3.Principal_Any:
		return anything(p, id.Any)
	case *rbacv3.Principal_AndIds:
		return t.principals(p, And, id.AndIds.GetIds(), depth)
	case *rbacv3.Principal_OrIds:
		return t.principals(p, Or, id.OrIds.GetIds(), depth)
	case *rbacv3.Principal_NotId:
		return Condition{Kind: Not, Of: []Condition{t.principal(p, id.NotId, depth+1)}}
	case *rbacv3.Principal_Authenticated_:
		c := Condition{Kind: Authenticated}
		if name := id.Authenticated.GetPrincipalName(); name != nil {
			c.String = decodeString(p.in("principal_name"), name)
		}
		return c
	case *rbacv3.Principal_DirectRemoteIp:
		return Condition{Kind: SourceIP, Prefix: prefix(p.in("direct_remote_ip"), id.DirectRemoteIp)}
	case *rbacv3.Principal_RemoteIp:
		return Condition{Kind: RemoteIP, Prefix: prefix(p.in("remote_ip"), id.RemoteIp)}
	case *rbacv3.Principal_SourceIp:
		return Condition{Kind: SourceIP, Prefix: prefix(p.in("source_ip"), id.SourceIp)}
	case *rbacv3.Principal_Header:
		header := decodeHeader(p.in("header"), id.Header)
		return Condition{Kind: Header, Header: &header}
	case *rbacv3.Principal_UrlPath:
		return pathCondition(p, id.UrlPath)
	}
	p.refuse("identifier", "is not supported")
	return Condition{Kind: Or}
}

func (t conditions) principals(p problems, kind ConditionKind, ids []*rbacv3.Principal, depth int) Condition {
	c := Condition{Kind: kind}
	if len(ids) == 0 {
		p.refuse("ids", "is empty")
	}
	for _, id := range ids {
		c.Of = append(c.Of, t.principal(p, id, depth+1))
	}
	return c
}

// anything: "any: false" says nothing that anybody could mean (the proto demands true).
func anything(p problems, value bool) Condition {
	if !value {
		p.refuse("any", "must be true")
	}
	return Condition{Kind: Any}
}

func pathCondition(p problems, pb *matcherv3.PathMatcher) Condition {
	return Condition{Kind: Path, String: decodeString(p.in("url_path.path"), pb.GetPath())}
}

// prefix cuts off bits beyond the prefix length, as Envoy does.
func prefix(p problems, pb *corev3.CidrRange) netip.Prefix {
	address, err := netip.ParseAddr(pb.GetAddressPrefix())
	if err != nil {
		p.refuse("address_prefix", "%q is not an IP address", pb.GetAddressPrefix())
		return netip.Prefix{}
	}
	cut, err := address.WithZone("").Prefix(int(min(pb.GetPrefixLen().GetValue(), 129)))
	if err != nil {
		p.refuse("prefix_len", "%d is out of range", pb.GetPrefixLen().GetValue())
	}
	return cut
}
