package federate

import (
	"cmp"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// Report is what the SPIRE server holds, for the controllers. Refused says why a domain's bundle did not get as far as
// the server, or "": the agent's for others' domains, the controllers' for the own one.
func (f *Federator) Report(now time.Time, refused map[spiffeid.TrustDomain]string) *pb.FederationReport {
	s, own := f.Status(), f.config.Table.Owner().Domain
	out := &pb.FederationReport{DoneAgeMs: -1, Error: s.Error}
	if !s.Done.IsZero() {
		out.DoneAgeMs = now.Sub(s.Done).Milliseconds()
	}
	if s.Domains == nil {
		return out
	}
	out.Bundles = append(out.Bundles, s.bundle(own, s.Own, refused[own], now))
	for domain, d := range s.Domains {
		out.Bundles = append(out.Bundles, s.bundle(domain, d, refused[domain], now))
	}
	for domain, why := range refused {
		if _, held := s.Domains[domain]; !held && domain != own {
			out.Bundles = append(out.Bundles, &pb.HeldBundle{TrustDomain: domain.Name(), Problem: why})
		}
	}
	slices.SortFunc(out.Bundles, func(x, y *pb.HeldBundle) int { return cmp.Compare(x.GetTrustDomain(), y.GetTrustDomain()) })
	return out
}

func (s Status) bundle(domain spiffeid.TrustDomain, d spire.DomainStatus, refused string, now time.Time) *pb.HeldBundle {
	b := &pb.HeldBundle{
		TrustDomain: domain.Name(), Sequence: d.Sequence, Authorities: uint32(d.Authorities), Delivery: d.Delivery, Problem: cmp.Or(refused, d.Problem),
	}
	if d.Authorities > 0 {
		b.ExpiresAtMs, b.HeldMs = d.Expiry.UnixMilli(), now.Sub(s.Since[domain]).Milliseconds()
	}
	return b
}
