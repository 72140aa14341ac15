package serverapi

import (
	"log/slog"

	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	localauthorityv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/localauthority/v1"
	trustdomainv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/trustdomain/v1"
	"google.golang.org/grpc"

	"github.com/periplus-mesh/periplus/trust/authority/ca"
)

// server is what the four services have in common.
type server struct {
	authority *ca.Authority
	log       *slog.Logger
}

// Register offers the SPIRE server API over a on r, to whoever can call it.
func Register(r grpc.ServiceRegistrar, a *ca.Authority, log *slog.Logger) {
	s := server{a, log}
	entryv1.RegisterEntryServer(r, &entryAPI{server: s})
	bundlev1.RegisterBundleServer(r, &bundleAPI{server: s})
	trustdomainv1.RegisterTrustDomainServer(r, &trustDomainAPI{server: s})
	localauthorityv1.RegisterLocalAuthorityServer(r, &localAuthorityAPI{server: s})
}
