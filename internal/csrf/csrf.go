package csrf

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Protect answers 403 in next's place where a browser was made to ask for a change, or to read (see [Loopback]).
func Protect(next http.Handler) http.Handler {
	next = Loopback(next)
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if changes(r.Method) && !local(r.Host) {
			http.Error(w, "changes are taken at an IP address or localhost, not at a name that anybody could give to this machine", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// Loopback answers 403 in next's place to requests that came over loopback to another name than localhost: what is meant for
// this machine alone, a page whose own name was made to lead here must not read. A request without a Host comes from no
// browser.
func Loopback(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "" && !local(r.Host) && overLoopback(r) {
			http.Error(w, "this is answered at an IP address or localhost, not at a name that anybody could give to this machine", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func overLoopback(r *http.Request) bool {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	at, err := netip.ParseAddrPort(address.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

func changes(method string) bool {
	return method != http.MethodGet && method != http.MethodHead && method != http.MethodOptions
}

// local tells whether no DNS server has a say in where host leads.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	_, err := netip.ParseAddr(host)
	return err == nil || strings.EqualFold(host, "localhost")
}
