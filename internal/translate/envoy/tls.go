package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/periplus-mesh/periplus/internal/mesh"
)

const (
	tlsSocketName = "envoy.transport_sockets.tls"
	// SPIRE serves these two secrets to Envoy: the workload's SVID, and every bundle that it trusts.
	secretSVID    = "default"
	secretBundles = "ALL"
	// sdsCluster is the static Envoy cluster that reaches SPIRE's SDS.
	sdsCluster = "spire_agent"
)

// alpn is what a mesh connection for a protocol speaks; a client offers the first, a server takes any of them.
func alpn(p mesh.Protocol) []string {
	switch p {
	case mesh.HTTP:
		return []string{"periplus-http/1.1", "http/1.1"}
	case mesh.HTTP2, mesh.GRPC:
		return []string{"h2"}
	}
	return []string{"periplus-tcp"}
}

// upstreamTLS proves the workload's identity and accepts those identities only.
func upstreamTLS(serverName, protocol string, identities []string) *corev3.TransportSocket {
	common := commonTLS(identities)
	common.AlpnProtocols = []string{protocol}
	return tlsSocket(pack(&tlsv3.UpstreamTlsContext{Sni: serverName, CommonTlsContext: common}))
}

// downstreamTLS accepts any workload of a trusted domain; which of them may do what is RBAC's to say.
func downstreamTLS(p mesh.Protocol) *corev3.TransportSocket {
	common := commonTLS(nil)
	common.AlpnProtocols = alpn(p)
	return tlsSocket(pack(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true), CommonTlsContext: common,
	}))
}

func commonTLS(identities []string) *tlsv3.CommonTlsContext {
	validation := &tlsv3.CertificateValidationContext{}
	for _, id := range identities {
		validation.MatchTypedSubjectAltNames = append(validation.MatchTypedSubjectAltNames, &tlsv3.SubjectAltNameMatcher{
			SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exactly(id),
		})
	}
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, // Envoy's own maximum towards upstreams is 1.2
		},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{sdsSecret(secretSVID)},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         validation,
				ValidationContextSdsSecretConfig: sdsSecret(secretBundles),
			},
		},
	}
}

func sdsSecret(name string) *tlsv3.SdsSecretConfig {
	service := &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: sdsCluster},
	}}
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
			ApiType: corev3.ApiConfigSource_GRPC, TransportApiVersion: corev3.ApiVersion_V3,
			GrpcServices: []*corev3.GrpcService{service},
		}},
	}}
}

func tlsSocket(config *anypb.Any) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: tlsSocketName, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config},
	}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}
