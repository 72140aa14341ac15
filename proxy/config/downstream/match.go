package downstream

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/config/field"
)

func decodeMatch(p field.Problems, pb *routev3.RouteMatch) config.RouteMatch {
	p.Unsupported("tls_context", pb.GetTlsContext() != nil)
	p.Unsupported("dynamic_metadata", len(pb.GetDynamicMetadata())+len(pb.GetFilterState())+len(pb.GetCookies()) > 0)
	p.Limit("headers", len(pb.GetHeaders())+len(pb.GetQueryParameters()), maxMatches)
	m := config.RouteMatch{Path: decodePath(p, pb), GRPC: pb.GetGrpc() != nil}
	if fraction := pb.GetRuntimeFraction().GetDefaultValue(); fraction != nil {
		share := p.In("runtime_fraction").Permillion(fraction.GetNumerator(), fraction.GetDenominator().String())
		m.Fraction = &share
	}
	for i, header := range pb.GetHeaders() {
		m.Headers = append(m.Headers, decodeHeader(p.At("headers", i), header))
	}
	for i, query := range pb.GetQueryParameters() {
		match := config.QueryMatch{Name: query.GetName()}
		if query.GetStringMatch() != nil {
			match.Value = decodeString(p.At("query_parameters", i).In("string_match"), query.GetStringMatch())
		}
		if _, ok := query.GetQueryParameterMatchSpecifier().(*routev3.QueryParameterMatcher_PresentMatch); ok {
			match.Absent = !query.GetPresentMatch()
		}
		m.Query = append(m.Query, match)
	}
	return m
}

func decodePath(p field.Problems, pb *routev3.RouteMatch) config.PathMatch {
	m := config.PathMatch{IgnoreCase: !field.Boolean(pb.GetCaseSensitive(), true)}
	switch path := pb.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		m.Kind, m.Value = config.PathPrefix, path.Prefix
	case *routev3.RouteMatch_Path:
		m.Kind, m.Value = config.PathExact, path.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		m.Kind, m.Value = config.PathSeparatedPrefix, path.PathSeparatedPrefix
		if !strings.HasPrefix(m.Value, "/") || strings.HasSuffix(m.Value, "/") {
			p.Refuse("path_separated_prefix", "%q must begin and must not end with /", m.Value)
		}
	case *routev3.RouteMatch_SafeRegex:
		m.Kind, m.Value = config.PathRegex, path.SafeRegex.GetRegex()
		m.Regex = p.Regex("safe_regex", m.Value)
	default:
		p.Refuse("path_specifier", "must be prefix, path, path_separated_prefix or safe_regex")
	}
	if m.IgnoreCase && m.Kind != config.PathRegex {
		m.Value = strings.ToLower(m.Value)
	}
	return m
}

func decodeHeader(p field.Problems, pb *routev3.HeaderMatcher) config.HeaderMatch {
	m := config.HeaderMatch{
		Name: strings.ToLower(pb.GetName()), Invert: pb.GetInvertMatch(), MissingAsEmpty: pb.GetTreatMissingHeaderAsEmpty(),
	}
	if m.Name == "" {
		p.Refuse("name", "is empty")
	}
	exact := func(kind config.StringKind, value string) { m.Value = &config.StringMatch{Kind: kind, Value: value} }
	switch match := pb.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		m.Value = decodeString(p.In("string_match"), match.StringMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		m.Range = &config.IntRange{Start: match.RangeMatch.GetStart(), End: match.RangeMatch.GetEnd()}
	case *routev3.HeaderMatcher_PresentMatch:
		// present_match: false is "absent" (header matcher docs)
		m.Present, m.Invert = true, m.Invert != !match.PresentMatch
	case nil:
		m.Present = true
	case *routev3.HeaderMatcher_ExactMatch:
		exact(config.StringExact, match.ExactMatch)
	case *routev3.HeaderMatcher_PrefixMatch:
		exact(config.StringPrefix, match.PrefixMatch)
	case *routev3.HeaderMatcher_SuffixMatch:
		exact(config.StringSuffix, match.SuffixMatch)
	case *routev3.HeaderMatcher_ContainsMatch:
		exact(config.StringContains, match.ContainsMatch)
	case *routev3.HeaderMatcher_SafeRegexMatch:
		m.Value = &config.StringMatch{Kind: config.StringRegex, Regex: p.Regex("safe_regex_match", match.SafeRegexMatch.GetRegex())}
	}
	return m
}

func decodeString(p field.Problems, pb *matcherv3.StringMatcher) *config.StringMatch {
	m := &config.StringMatch{IgnoreCase: pb.GetIgnoreCase()}
	switch match := pb.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		m.Kind, m.Value = config.StringExact, match.Exact
	case *matcherv3.StringMatcher_Prefix:
		m.Kind, m.Value = config.StringPrefix, match.Prefix
	case *matcherv3.StringMatcher_Suffix:
		m.Kind, m.Value = config.StringSuffix, match.Suffix
	case *matcherv3.StringMatcher_Contains:
		m.Kind, m.Value = config.StringContains, match.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		m.Kind, m.Value = config.StringRegex, match.SafeRegex.GetRegex()
		m.Regex = p.Regex("safe_regex", m.Value)
	default:
		p.Refuse("match_pattern", "is not supported")
	}
	if m.IgnoreCase && m.Kind != config.StringRegex {
		m.Value = strings.ToLower(m.Value)
	}
	return m
}
