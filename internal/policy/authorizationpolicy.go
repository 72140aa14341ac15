package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	istio "istio.io/api/security/v1beta1"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

var authorizationPolicy = kind{
	name: mesh.KindAuthorizationPolicy, group: "security.istio.io", versions: []string{"v1", "v1beta1"},
	message: func() proto.Message { return new(istio.AuthorizationPolicy) },
	supported: concat([]string{"selector.matchLabels", "action"},
		under("rules.from.source", "principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts"),
		under("rules.to.operation", "hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths")),
	cures: map[string]string{
		"ipBlocks": "use principals or namespaces: an address says nothing about identity across networks",
		"when":     "express the condition in from and to",
	},
	convert: func(d *document, m proto.Message) mesh.PolicySpec {
		return d.authorizationPolicy(m.(*istio.AuthorizationPolicy))
	},
}

func (d *document) authorizationPolicy(p *istio.AuthorizationPolicy) *mesh.AuthorizationPolicy {
	out := &mesh.AuthorizationPolicy{Selector: p.GetSelector().GetMatchLabels(), Action: mesh.Allow}
	switch p.GetAction() {
	case istio.AuthorizationPolicy_ALLOW:
	case istio.AuthorizationPolicy_DENY:
		out.Action = mesh.Deny
	default:
		d.fault("spec.action", fmt.Sprintf("%s is not supported", p.GetAction()), "use ALLOW or DENY")
	}
	for i, rule := range p.GetRules() {
		out.Rules = append(out.Rules, d.authorizationRule(fmt.Sprintf("spec.rules[%d]", i), rule))
	}
	return out
}

func (d *document) authorizationRule(path string, r *istio.Rule) (out mesh.AuthorizationRule) {
	for i, from := range r.GetFrom() {
		at, s := fmt.Sprintf("%s.from[%d].source", path, i), from.GetSource()
		source := mesh.AuthorizationSource{
			Principals: d.patterns(at+".principals", s.GetPrincipals()), NotPrincipals: d.patterns(at+".notPrincipals", s.GetNotPrincipals()),
			Namespaces: d.patterns(at+".namespaces", s.GetNamespaces()), NotNamespaces: d.patterns(at+".notNamespaces", s.GetNotNamespaces()),
		}
		if len(s.GetServiceAccounts()) > 0 && !isEmpty(s.GetPrincipals(), s.GetNamespaces()) {
			d.fault(at+".serviceAccounts", "excludes principals and namespaces", "write a source of its own for them: sources are alternatives")
		}
		source.Principals = append(source.Principals, d.serviceAccounts(at+".serviceAccounts", s.GetServiceAccounts())...)
		source.NotPrincipals = append(source.NotPrincipals, d.serviceAccounts(at+".notServiceAccounts", s.GetNotServiceAccounts())...)
		if s == nil || isEmpty(source.Principals, source.NotPrincipals, source.Namespaces, source.NotNamespaces) {
			d.fault(at, "is empty", "name a source, or remove 'from' to match every source")
		}
		out.From = append(out.From, source)
	}
	for i, to := range r.GetTo() {
		out.To = append(out.To, d.operation(fmt.Sprintf("%s.to[%d].operation", path, i), to.GetOperation()))
	}
	return out
}

func isEmpty(lists ...[]string) bool {
	return !slices.ContainsFunc(lists, func(l []string) bool { return len(l) > 0 })
}

func (d *document) operation(at string, o *istio.Operation) mesh.AuthorizationOperation {
	out := mesh.AuthorizationOperation{
		Hosts: d.patterns(at+".hosts", o.GetHosts()), NotHosts: d.patterns(at+".notHosts", o.GetNotHosts()),
		Ports: d.ports(at+".ports", o.GetPorts()), NotPorts: d.ports(at+".notPorts", o.GetNotPorts()),
		Methods: d.patterns(at+".methods", o.GetMethods()), NotMethods: d.patterns(at+".notMethods", o.GetNotMethods()),
		Paths: d.patterns(at+".paths", o.GetPaths()), NotPaths: d.patterns(at+".notPaths", o.GetNotPaths()),
	}
	for _, path := range append(slices.Clone(out.Paths), out.NotPaths...) {
		if strings.ContainsAny(path, "{}") {
			d.fault(at+".paths", fmt.Sprintf("%q: path templates are not supported", path), "use an exact path, a prefix* or a *suffix")
		}
	}
	if isEmpty(out.Hosts, out.NotHosts, out.Ports, out.NotPorts, out.Methods, out.NotMethods, out.Paths, out.NotPaths) {
		d.fault(at, "is empty", "name an operation, or remove 'to' to match every operation")
	}
	return out
}

// patterns are exact, prefix*, *suffix or *.
func (d *document) patterns(path string, in []string) []string {
	for i, p := range in {
		if p == "" || strings.Contains(strings.TrimSuffix(strings.TrimPrefix(p, "*"), "*"), "*") || len(p) > 1 && p[0] == '*' && p[len(p)-1] == '*' {
			d.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is not a pattern", p), "write an exact value, prefix*, *suffix or *")
		}
	}
	return in
}

func (d *document) ports(path string, in []string) []string {
	for i, p := range in {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			d.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is not a port", p), "write a number from 1 to 65535")
		}
	}
	return in
}

// serviceAccounts are ACCOUNT (of the policy's namespace) or NAMESPACE/ACCOUNT, in whatever trust domain.
func (d *document) serviceAccounts(path string, in []string) (out []string) {
	for i, s := range in {
		namespace, account, ok := strings.Cut(s, "/")
		if !ok {
			namespace, account = d.namespace, s
		}
		if namespace == "" || account == "" || strings.ContainsAny(s, "*") {
			d.fault(fmt.Sprintf("%s[%d]", path, i), fmt.Sprintf("%q is not a service account", s), "write NAMESPACE/ACCOUNT")
		}
		out = append(out, "*/ns/"+namespace+"/sa/"+account)
	}
	return out
}
