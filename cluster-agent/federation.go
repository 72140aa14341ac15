package clusteragent

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/federate"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// federates tells whether there is a SPIRE server to federate.
func (c *Config) federates() bool {
	return c.Server != nil || c.ServerSocket != "" || c.ServerAddress != ""
}

// federate ties the trust domain to the others until ctx is done.
func (a *agent) federate(ctx context.Context, source trust.Source) error {
	server := a.config.Server
	if server == nil {
		client, err := a.dialSPIRE(source)
		if err != nil {
			return err
		}
		defer client.Close()
		server = client
	}
	federator, err := federate.New(federate.Config{
		Server: server, Source: source, Table: a.table, Store: a.store, Plane: a.credential.Plane(), PlaneBundle: a.credential.Bundle,
		Complete: a.complete, Refused: a.refusedBundles, DataDir: a.config.DataDir, EndpointURL: a.config.BundleEndpoint, Paths: a.config.FederatePaths,
		Log: a.config.Log, Metrics: a.config.Metrics,
	})
	if err != nil {
		return err
	}
	a.federator.Set(federator)
	return federator.Run(ctx)
}

func (a *agent) dialSPIRE(source trust.Source) (*spire.Client, error) {
	if a.config.ServerAddress != "" {
		return spire.DialTCP(a.config.ServerAddress, a.table.Owner().Domain, source)
	}
	return spire.Dial(a.config.ServerSocket)
}

// completeAfter is how long a controller must have been connected for its silence to mean something.
const completeAfter = 10 * time.Second

// complete tells whether a controller, and not only the disk, has said what other clusters there are.
func (a *agent) complete() bool {
	select {
	case <-a.follower.Synced():
	default:
		return false // a part of it
	}
	status := a.follower.Status()
	return status.Controller != "" && !status.Updated.IsZero() && time.Since(status.Since) > completeAfter
}

// refusedBundles are the domains of which the follower has refused what a controller sent last.
func (a *agent) refusedBundles() []spiffeid.TrustDomain {
	return slices.Collect(maps.Keys(federations(a.follower.Status().Refused)))
}

// federationReport is what the SPIRE server holds, with what did not get as far; nil: it is not federated.
func (a *agent) federationReport(now time.Time) *pb.FederationReport {
	if !a.config.federates() {
		return nil
	}
	federator := a.federator.Latest()
	if federator == nil {
		return &pb.FederationReport{DoneAgeMs: -1, Error: "the agent has no SVID yet"}
	}
	refused := federations(a.follower.Status().Refused)
	own := a.table.Owner().Domain
	delete(refused, own) // only controllers refuse the own one
	if why, ok := federations(a.reporter.Status().Refused)[own]; ok {
		refused[own] = why
	}
	return federator.Report(now, refused)
}

// federations picks the trust domains of refused objects.
func federations(refused map[string]string) map[spiffeid.TrustDomain]string {
	out := map[spiffeid.TrustDomain]string{}
	for key, why := range refused {
		name, ok := strings.CutPrefix(key, string(mesh.FederationKey("")))
		if domain, err := spiffeid.TrustDomainFromString(name); ok && err == nil {
			out[domain] = why
		}
	}
	return out
}
