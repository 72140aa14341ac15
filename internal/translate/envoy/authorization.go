package envoy

import (
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/periplus-mesh/periplus/internal/translate/envoy/rbac"
)

const (
	httpRBACFilter    = "envoy.filters.http.rbac"
	networkRBACFilter = "envoy.filters.network.rbac"
)

// httpAuthorization asks the rules of each request, before the router.
func httpAuthorization(r rbac.Rules) (out []*hcmv3.HttpFilter) {
	for _, rules := range []*rbacv3.RBAC{r.Deny, r.Allow} {
		if rules != nil {
			config := pack(&httprbacv3.RBAC{Rules: rules})
			out = append(out, &hcmv3.HttpFilter{Name: httpRBACFilter, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}})
		}
	}
	return out
}

// networkAuthorization asks the rules of each connection, before the TCP proxy.
func networkAuthorization(r rbac.Rules, prefix string) (out []*listenerv3.Filter) {
	for _, rules := range []*rbacv3.RBAC{r.Deny, r.Allow} {
		if rules != nil {
			out = append(out, networkFilter(networkRBACFilter, &netrbacv3.RBAC{Rules: rules, StatPrefix: prefix}))
		}
	}
	return out
}
