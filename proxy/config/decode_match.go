package config

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

func decodeMatch(p problems, pb *routev3.RouteMatch) RouteMatch {
	p.unsupported("tls_context", pb.GetTlsContext() != nil)
	p.unsupported("dynamic_metadata", len(pb.GetDynamicMetadata())+len(pb.GetFilterState())+len(pb.GetCookies()) > 0)
	p.limit("headers", len(pb.GetHeaders())+len(pb.GetQueryParameters()), maxMatches)
	m := RouteMatch{Path: decodePath(p, pb), GRPC: pb.GetGrpc() != nil}
	if fraction := pb.GetRuntimeFraction().GetDefaultValue(); fraction != nil {
		share := permillion(p.in("runtime_fraction"), fraction.GetNumerator(), fraction.GetDenominator().String())
		m.Fraction = &share
	}
	for i, header := range pb.GetHeaders() {
		m.Headers = append(m.Headers, decodeHeader(p.at("headers", i), header))
	}
	for i, query := range pb.GetQueryParameters() {
		match := QueryMatch{Name: query.GetName()}
		if query.GetStringMatch() != nil {
			match.Value = decodeString(p.at("query_parameters", i).in("string_match"), query.GetStringMatch())
		}
		if _, ok := query.GetQueryParameterMatchSpecifier().(*routev3.QueryParameterMatcher_PresentMatch); ok {
			match.Absent = !query.GetPresentMatch()
		}
		m.Query = append(m.Query, match)
	}
	return m
}

func decodePath(p problems, pb *routev3.RouteMatch) PathMatch {
	m := PathMatch{IgnoreCase: !boolean(pb.GetCaseSensitive(), true)}
	switch path := pb.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		m.Kind, m.Value = PathPrefix, path.Prefix
	case *routev3.RouteMatch_Path:
		m.Kind, m.Value = PathExact, path.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		m.Kind, m.Value = PathSeparatedPrefix, path.PathSeparatedPrefix
		if !strings.HasPrefix(m.Value, "/") || strings.HasSuffix(m.Value, "/") {
			p.refuse("path_separated_prefix", "%q must begin and must not end with /", m.Value)
		}
	case *routev3.RouteMatch_SafeRegex:
		m.Kind, m.Value = PathRegex, path.SafeRegex.GetRegex()
		m.Regex = p.regex("safe_regex", m.Value)
	default:
		p.refuse("path_specifier", "must be prefix, path, path_separated_prefix or safe_regex")
	}
	if m.IgnoreCase && m.Kind != PathRegex {
		m.Value = strings.ToLower(m.Value)
	}
	return m
}

func decodeHeader(p problems, pb *routev3.HeaderMatcher) HeaderMatch {
	m := HeaderMatch{
		Name: strings.ToLower(pb.GetName()), Invert: pb.GetInvertMatch(), MissingAsEmpty: pb.GetTreatMissingHeaderAsEmpty(),
	}
	if m.Name == "" {
		p.refuse("name", "is empty")
	}
	exact := func(kind StringKind, value string) { m.Value = &StringMatch{Kind: kind, Value: value} }
	switch match := pb.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		m.Value = decodeString(p.in("string_match"), match.StringMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		m.Range = &IntRange{match.RangeMatch.GetStart(), match.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_PresentMatch:
		// present_match: false is "absent" (header matcher docs)
		m.Present, m.Invert = true, m.Invert != !match.PresentMatch
	case nil:
		m.Present = true
	case *routev3.HeaderMatcher_ExactMatch:
		exact(StringExact, match.ExactMatch)
	case *routev3.HeaderMatcher_PrefixMatch:
		exact(StringPrefix, match.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		exact(StringSuffix, match.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		exact(StringContains, match.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		m.Value = &StringMatch{Kind: StringRegex, Regex: p.regex("safe_regex_match", match.SafeRegexMatch.GetRegex())}
	}
	return m
}

func decodeString(p problems, pb *matcherv3.StringMatcher) *StringMatch {
	m := &StringMatch{IgnoreCase: pb.GetIgnoreCase()}
	switch match := pb.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		m.Kind, m.Value = StringExact, match.Exact
	case *matcherv3.StringMatcher_Prefix:
		m.Kind, m.Value = StringPrefix, match.Prefix
	case *matcherv3.StringMatcher_Suffix:
		m.Kind, m.Value = StringSuffix, match.Suffix
	case *matcherv3.StringMatcher_Contains:
		m.Kind, m.Value = StringContains, match.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		m.Kind, m.Value = StringRegex, match.SafeRegex.GetRegex()
		m.Regex = p.regex("safe_regex", m.Value)
	default:
		p.refuse("match_pattern", "is not supported")
	}
	if m.IgnoreCase && m.Kind != StringRegex {
		m.Value = strings.ToLower(m.Value)
	}
	return m
}
