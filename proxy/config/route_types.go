package config

import (
	"regexp"
	"time"
)

// RouteTable is a RouteConfiguration.
type RouteTable struct {
	Name         string
	VirtualHosts []*VirtualHost // unique domains over all of them
	Headers      HeaderOps
	// IgnorePort: strip the port of an authority before domains are matched (ignore_port_in_host_matching).
	IgnorePort bool
	// MostSpecificWins: header mutations of the route come last.
	MostSpecificWins bool
}

// VirtualHost holds the routes of some domains: exact, "*.suffix", "prefix.*" or "*". Lower case.
type VirtualHost struct {
	Name    string
	Domains []string
	Routes  []*Route // first match wins
	Retry   *RetryPolicy
	Headers HeaderOps
	// IncludeAttempts: send x-envoy-attempt-count upstream.
	IncludeAttempts bool
	// AttemptsInResponse: send it downstream too.
	AttemptsInResponse bool
}

// Route has exactly one of Forward, Direct and Redirect.
type Route struct {
	Name     string
	Match    RouteMatch
	Headers  HeaderOps
	Forward  *Forward
	Direct   *DirectResponse
	Redirect *Redirect
	// NonForwarding matches nothing upstream (proxyless servers); answered 404.
	NonForwarding bool
}

// RouteMatch holds when all that is set holds.
type RouteMatch struct {
	Path    PathMatch
	Headers []HeaderMatch
	Query   []QueryMatch
	// Fraction in parts per million; nil: always.
	Fraction *uint32
	GRPC     bool // only requests with content-type application/grpc*
}

// PathKind is how a path is matched.
type PathKind uint8

// The kinds. PathPrefix is plain; PathSeparatedPrefix ends at a segment.
const (
	PathPrefix PathKind = iota
	PathSeparatedPrefix
	PathExact
	PathRegex
)

// PathMatch matches the path without query.
type PathMatch struct {
	Kind       PathKind
	Value      string
	Regex      *regexp.Regexp // of the whole path; PathRegex only
	IgnoreCase bool
}

// StringKind is how a string is matched.
type StringKind uint8

// The kinds.
const (
	StringExact StringKind = iota
	StringPrefix
	StringSuffix
	StringContains
	StringRegex
)

// StringMatch is Envoy's StringMatcher.
type StringMatch struct {
	Kind       StringKind
	Value      string // lower case if IgnoreCase
	Regex      *regexp.Regexp
	IgnoreCase bool
}

// HeaderMatch: of a header by lower-case name (":method", ":authority", ":path", ":scheme" included). Several
// values are joined with "," as Envoy does.
type HeaderMatch struct {
	Name string
	// Exactly one: Value, Range, or Present.
	Value   *StringMatch
	Range   *IntRange
	Present bool
	// MissingAsEmpty: an absent header is the empty string (treat_missing_header_as_empty).
	MissingAsEmpty bool
	Invert         bool
}

// IntRange is [Start, End).
type IntRange struct{ Start, End int64 }

// QueryMatch: of a query parameter; Value nil means present.
type QueryMatch struct {
	Name   string
	Value  *StringMatch // nil: any
	Absent bool         // instead: the parameter must not be there
}

// Forward sends a request to a cluster.
type Forward struct {
	Clusters    []WeightedCluster // one or more
	TotalWeight uint64            // sum of the weights, > 0
	Timeout     time.Duration     // whole response, retries included; 0: none. Absent means 15 s as in Envoy
	IdleTimeout time.Duration     // of the stream; 0: the listener's
	// MaxStreamDuration; 0: none. GRPCTimeoutMax > 0: grpc-timeout is honoured up to it.
	MaxStreamDuration, GRPCTimeoutMax time.Duration
	// AppendForwardedHost: a rewritten host is kept in x-forwarded-host.
	AppendForwardedHost bool
	Retry               *RetryPolicy // nil: the virtual host's
	PrefixRewrite       string       // replaces the matched prefix or path
	RegexRewrite        *RegexRewrite
	HostRewrite         string
	Hash                []HashPolicy
	Priority            Priority
	ClusterNotFound     int // status for a dangling reference; default 503
}

// RegexRewrite replaces all matches in the path; Substitution uses Go's ${1}.
type RegexRewrite struct {
	Pattern      *regexp.Regexp
	Substitution string
}

// WeightedCluster is one destination.
type WeightedCluster struct {
	Name        string
	Weight      uint32
	Headers     HeaderOps
	HostRewrite string
}

// Priority is Envoy's RoutingPriority.
type Priority uint8

// The priorities.
const (
	DefaultPriority Priority = iota
	HighPriority
)

// HeaderOps are applied in the order remove, then each of Request or Response in turn.
type HeaderOps struct {
	Request, Response             []HeaderOp
	RemoveRequest, RemoveResponse []string // canonical lower case
}

// Empty tells whether there is nothing to do.
func (h *HeaderOps) Empty() bool {
	return len(h.Request)+len(h.Response)+len(h.RemoveRequest)+len(h.RemoveResponse) == 0
}

// HeaderAction is Envoy's HeaderAppendAction.
type HeaderAction uint8

// The actions.
const (
	AppendOrAdd HeaderAction = iota
	AddIfAbsent
	OverwriteOrAdd
	OverwriteIfExists
)

// HeaderOp sets one header. Value is literal ("%" commands are refused).
type HeaderOp struct {
	Name, Value string // name lower case
	Action      HeaderAction
}

// RetryPolicy says when to try again.
type RetryPolicy struct {
	On            RetryOn
	Codes         []int // for RetryCodes
	Attempts      uint32
	PerTryTimeout time.Duration // 0: the route's timeout
	PerTryIdle    time.Duration // 0: none
	// Back-off base and cap; never 0 (25 ms and 10 times the base).
	BackoffBase, BackoffMax time.Duration
	// OtherHost: a host not tried yet is taken if there is one (previous_hosts). Envoy looks for one by chance, as often as
	// host_selection_retry_max_attempts allows; here it is found.
	OtherHost bool
	// FurtherAfter is how many attempts go to the priorities that the load says before each of those that were tried is
	// left out (previous_priorities, update_frequency); 0: none ever is.
	FurtherAfter uint32
}

// RetryOn is a set of conditions, as Envoy's x-envoy-retry-on and x-envoy-retry-grpc-on.
type RetryOn uint32

// The conditions.
const (
	Retry5xx RetryOn = 1 << iota
	RetryGatewayError
	RetryReset
	RetryResetBeforeRequest
	RetryConnectFailure
	RetryRetriable4xx
	RetryRefusedStream
	RetryCodes
	RetryRetriableHeaders
	RetryGRPCCancelled
	RetryGRPCDeadline
	RetryGRPCInternal
	RetryGRPCExhausted
	RetryGRPCUnavailable
)

// HashKind is where a hash comes from.
type HashKind uint8

// The kinds.
const (
	HashHeader HashKind = iota
	HashCookie
	HashQuery
	HashSourceIP
)

// HashPolicy contributes to the hash of a request.
type HashPolicy struct {
	Kind     HashKind
	Name     string // of the header (lower case), cookie or parameter
	Path     string // cookie made by the proxy
	TTL      *time.Duration
	Terminal bool
}

// DirectResponse is answered by the proxy itself.
type DirectResponse struct {
	Status int
	Body   []byte
}

// Redirect is answered by the proxy itself; empty parts stay as they were.
type Redirect struct {
	Status              int
	Scheme, Host        string
	Port                uint16
	Path, PrefixRewrite string
	HTTPS, StripQuery   bool
}
