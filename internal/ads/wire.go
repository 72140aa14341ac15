package ads

import (
	"strings"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"

	"github.com/periplus-mesh/periplus/internal/xds"
)

// maxDetail bounds the reason of a rejection that is kept and logged.
const maxDetail = 1 << 10

// DeltaRequest is a request of a delta stream, in plain terms.
func DeltaRequest(m *discoveryv3.DeltaDiscoveryRequest) xds.Request {
	return xds.Request{
		Type:            xds.Type(m.GetTypeUrl()),
		Nonce:           m.GetResponseNonce(),
		Rejected:        m.GetErrorDetail() != nil,
		Detail:          clip(m.GetErrorDetail().GetMessage()),
		Subscribe:       m.GetResourceNamesSubscribe(),
		Unsubscribe:     m.GetResourceNamesUnsubscribe(),
		InitialVersions: m.GetInitialResourceVersions(),
	}
}

// StateRequest is a request of a state-of-the-world stream, in plain terms.
func StateRequest(m *discoveryv3.DiscoveryRequest) xds.Request {
	return xds.Request{
		Type:     xds.Type(m.GetTypeUrl()),
		Nonce:    m.GetResponseNonce(),
		Rejected: m.GetErrorDetail() != nil,
		Detail:   clip(m.GetErrorDetail().GetMessage()),
		Names:    m.GetResourceNames(),
	}
}

// DeltaMessage is the inverse of [DeltaRequest].
func DeltaMessage(r xds.Request) *discoveryv3.DeltaDiscoveryRequest {
	m := &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:                  string(r.Type),
		ResponseNonce:            r.Nonce,
		ResourceNamesSubscribe:   r.Subscribe,
		ResourceNamesUnsubscribe: r.Unsubscribe,
		InitialResourceVersions:  r.InitialVersions,
	}
	if r.Rejected {
		m.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: clip(r.Detail)}
	}
	return m
}

// clip bounds a text and keeps it valid UTF-8, which protobuf demands. Of a long one it keeps the end, too: Envoy says
// there, after the whole resource, what is wrong with it.
func clip(text string) string {
	if len(text) > maxDetail {
		const head, gap = maxDetail / 4, " ... "
		text = text[:head] + gap + text[len(text)-(maxDetail-head-len(gap)):]
	}
	return strings.ToValidUTF8(text, "")
}
