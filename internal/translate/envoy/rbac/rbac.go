package rbac

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
)

// Rules are what is authorised at a workload: Deny is asked first, then Allow. Nil: nothing to ask.
type Rules struct{ Deny, Allow *rbacv3.RBAC }

// Of gathers the AuthorizationPolicies that select a workload of v with these labels. One Envoy policy stands for one
// rule, under Istio's name for it. tcp: the port has no HTTP.
func Of(s *mesh.Snapshot, v translate.View, labels map[string]string, tcp bool) Rules {
	var out Rules
	for policy := range s.Policies(mesh.KindAuthorizationPolicy) {
		spec, ok := policy.Spec.(*mesh.AuthorizationPolicy)
		if !ok || !policy.AppliesTo(v.Cluster) || !translate.Matches(spec.Selector, labels) {
			continue
		}
		if policy.Namespace != v.Namespace && policy.Namespace != mesh.RootNamespace {
			continue
		}
		into, action := &out.Allow, rbacv3.RBAC_ALLOW
		if spec.Action == mesh.Deny {
			if len(spec.Rules) == 0 {
				continue
			}
			into, action = &out.Deny, rbacv3.RBAC_DENY
		}
		if *into == nil {
			*into = &rbacv3.RBAC{Action: action, Policies: map[string]*rbacv3.Policy{}}
		}
		for i := range spec.Rules {
			if rule := policyOf(&spec.Rules[i], spec.Action, tcp); rule != nil {
				(*into).Policies[fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", policy.Namespace, policy.Name, i)] = rule
			}
		}
	}
	return out
}

// policyOf is one rule. On a TCP port what only HTTP has cannot be seen: an ALLOW operation that asks for it never
// matches, and a DENY operation matches without it; both are the safe side (and Istio's).
func policyOf(rule *mesh.AuthorizationRule, action mesh.AuthorizationAction, tcp bool) *rbacv3.Policy {
	out := &rbacv3.Policy{}
	for i := range rule.From {
		out.Principals = append(out.Principals, principal(&rule.From[i]))
	}
	if len(rule.From) == 0 {
		out.Principals = []*rbacv3.Principal{anybody()}
	}
	for i := range rule.To {
		if tcp && action == mesh.Allow && needsHTTP(&rule.To[i]) {
			continue
		}
		out.Permissions = append(out.Permissions, permission(&rule.To[i], tcp))
	}
	if len(rule.To) == 0 {
		out.Permissions = []*rbacv3.Permission{anything()}
	}
	if len(out.Permissions) == 0 {
		return nil
	}
	return out
}

func needsHTTP(o *mesh.AuthorizationOperation) bool {
	return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0
}

func principal(from *mesh.AuthorizationSource) *rbacv3.Principal {
	var all []*rbacv3.Principal
	add := func(values, not []string, match func(string) *matcherv3.StringMatcher) {
		if len(values) > 0 {
			all = append(all, anyPrincipal(values, match))
		}
		if len(not) > 0 {
			all = append(all, &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: anyPrincipal(not, match)}})
		}
	}
	add(from.Principals, from.NotPrincipals, func(v string) *matcherv3.StringMatcher { return pattern("spiffe://", v) })
	add(from.Namespaces, from.NotNamespaces, func(v string) *matcherv3.StringMatcher {
		return regex("spiffe://[^/]+/ns/" + glob(v) + "/sa/.+")
	})
	add(from.TrustDomains, from.NotTrustDomains, func(v string) *matcherv3.StringMatcher {
		return regex("spiffe://" + glob(v) + "/.+")
	})
	switch len(all) {
	case 0:
		return anybody()
	case 1:
		return all[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: all}}}
}

func anyPrincipal(values []string, match func(string) *matcherv3.StringMatcher) *rbacv3.Principal {
	var ids []*rbacv3.Principal
	for _, value := range values {
		ids = append(ids, &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{
			Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: match(value)},
		}})
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func permission(to *mesh.AuthorizationOperation, tcp bool) *rbacv3.Permission {
	var all []*rbacv3.Permission
	add := func(values, not []string, match func(string) *rbacv3.Permission) {
		if len(values) > 0 {
			all = append(all, anyPermission(values, match))
		}
		if len(not) > 0 {
			all = append(all, &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: anyPermission(not, match)}})
		}
	}
	if !tcp {
		add(to.Hosts, to.NotHosts, hostPermission)
		add(to.Methods, to.NotMethods, func(v string) *rbacv3.Permission { return headerPermission(":method", pattern("", v)) })
		add(to.Paths, to.NotPaths, pathPermission)
	}
	add(to.Ports, to.NotPorts, portPermission)
	switch len(all) {
	case 0:
		return anything()
	case 1:
		return all[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func anyPermission(values []string, match func(string) *rbacv3.Permission) *rbacv3.Permission {
	var rules []*rbacv3.Permission
	for _, value := range values {
		rules = append(rules, match(value))
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}

// hostPermission ignores case, and a port unless the rule names one: "shop" must not be got around by "SHOP:80".
func hostPermission(value string) *rbacv3.Permission {
	expression := "(?i)" + glob2(value)
	if !strings.Contains(value, ":") && !strings.HasSuffix(value, "*") {
		expression += "(:[0-9]+)?"
	}
	return headerPermission(":authority", regex(expression))
}

func headerPermission(name string, value *matcherv3.StringMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
	}}}
}

func pathPermission(value string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: pattern("", value)},
	}}}
}

// portPermission matches the port that the sidecar listens on. A value that is no number matches no port.
func portPermission(value string) *rbacv3.Permission {
	number, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: anything()}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(number)}}
}

func anybody() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func anything() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
}

// pattern is Istio's value: exact, "prefix*", "*suffix", or "*" for anything that is there. start stands before what
// the value says.
func pattern(start, value string) *matcherv3.StringMatcher {
	switch {
	case value == "*":
		return regex(".+")
	case strings.HasSuffix(value, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: start + strings.TrimSuffix(value, "*")}}
	case strings.HasPrefix(value, "*"):
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: strings.TrimPrefix(value, "*")}}
	}
	return exactly(start + value)
}

// glob is the regular expression of such a value inside one path segment.
func glob(value string) string { return star(value, "[^/]*") }

// glob2 is glob for a whole host.
func glob2(value string) string { return star(value, ".*") }

func star(value, any string) string {
	switch {
	case value == "*":
		return strings.TrimSuffix(any, "*") + "+"
	case strings.HasSuffix(value, "*"):
		return regexp.QuoteMeta(strings.TrimSuffix(value, "*")) + any
	case strings.HasPrefix(value, "*"):
		return any + regexp.QuoteMeta(strings.TrimPrefix(value, "*"))
	}
	return regexp.QuoteMeta(value)
}

// regex matches the whole string (RE2).
func regex(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expression},
	}}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}
