package field

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// PlainText: no socket, or a raw one.
func PlainText(p Problems, pb *corev3.TransportSocket) bool {
	if pb == nil {
		return true
	}
	return TypeOf(pb.GetTypedConfig()) == "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" &&
		p.Unpack("typed_config", pb.GetTypedConfig(), new(rawbuffer.RawBuffer))
}

// TLS reads what both directions share. SDS sources are accepted and ignored: keys come from the Workload API.
func TLS(p Problems, pb *tlsv3.CommonTlsContext) (alpn, sans []string) {
	p.Unsupported("tls_certificates", len(pb.GetTlsCertificates()) > 0) // private keys never travel over xDS
	p.Unsupported("custom_handshaker", pb.GetCustomHandshaker() != nil)
	p.Limit("alpn_protocols", len(pb.GetAlpnProtocols()), 16)
	validation, p2 := pb.GetValidationContext(), p.In("validation_context")
	if combined := pb.GetCombinedValidationContext(); combined != nil {
		validation, p2 = combined.GetDefaultValidationContext(), p.In("combined_validation_context.default_validation_context")
	}
	p2.Unsupported("trusted_ca", validation.GetTrustedCa() != nil)
	p2.Unsupported("custom_validator_config", validation.GetCustomValidatorConfig() != nil)
	p2.Unsupported("verify_certificate_hash", len(validation.GetVerifyCertificateHash())+len(validation.GetVerifyCertificateSpki()) > 0)
	return slices.Clone(pb.GetAlpnProtocols()), decodeSANs(p2, validation)
}

func decodeSANs(p Problems, pb *tlsv3.CertificateValidationContext) []string {
	p.Limit("match_typed_subject_alt_names", len(pb.GetMatchTypedSubjectAltNames()), maxSANs)
	p.Unsupported("match_subject_alt_names", len(pb.GetMatchSubjectAltNames()) > 0)
	var sans []string
	for i, san := range pb.GetMatchTypedSubjectAltNames() {
		exact := san.GetMatcher().GetExact()
		if san.GetSanType() != tlsv3.SubjectAltNameMatcher_URI || exact == "" {
			p.At("match_typed_subject_alt_names", i).Refuse("matcher", "must be an exact URI")
			return nil
		}
		sans = append(sans, exact)
	}
	slices.Sort(sans)
	return slices.Compact(sans)
}
