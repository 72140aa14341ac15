package federate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/durable"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
	"github.com/periplus-mesh/periplus/trust/continuity"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// Config of a federator.
type Config struct {
	// Server is the cluster's SPIRE server, or what stands in for it.
	Server Server
	// Source is the agent's SVID in the own trust domain: it signs.
	Source trust.Source
	Table  *own.Table
	Store  *mesh.Store // the table's
	// Plane is the control plane's trust domain and its bundle (JWKS), which sidecars need to reach controllers.
	Plane       spiffeid.TrustDomain
	PlaneBundle func() []byte
	// Complete tells whether the store has every trust domain there is, by a controller's word.
	Complete func() bool
	// Refused are the domains whose newest bundle was refused, and may be missing in the store therefore; nil: none ever.
	Refused func() []spiffeid.TrustDomain
	// EndpointURL is the bundle endpoint of the own SPIRE server, https://host[:port][/path] of profile https_spiffe, for
	// the other clusters' servers; "": none is told, the mesh alone carries the bundles.
	EndpointURL string
	// Paths limits which entries are made to federate, see spire.Desired; nil: every workload's.
	Paths []string
	// DataDir keeps which domains were set by this agent; it exists.
	DataDir string
	// Interval of looking at the SPIRE server without a reason; 0: 5 s.
	Interval time.Duration
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Server is the part of *spire.Client that is used.
type Server interface {
	OwnBundle(ctx context.Context) (*trust.Bundle, error)
	Reconcile(ctx context.Context, desired spire.Desired) (spire.Status, error)
}

func (c *Config) validate() error {
	switch {
	case c.Server == nil || c.Source == nil || c.Table == nil || c.Store == nil:
		return errors.New("federate: server, source, table and store are needed")
	case c.PlaneBundle == nil || c.Complete == nil || c.DataDir == "" || c.Log == nil || c.Metrics == nil:
		return errors.New("federate: plane bundle, complete, data folder, log and metrics are needed")
	}
	if c.Interval <= 0 {
		c.Interval = 5 * time.Second
	}
	if c.Refused == nil {
		c.Refused = func() []spiffeid.TrustDomain { return nil }
	}
	return nil
}

// Status of the federation, for people and for reports.
type Status struct {
	spire.Status
	// Since when the present sequence of each domain, the own one included, has been seen by this process.
	Since map[spiffeid.TrustDomain]time.Time `json:"since,omitempty"`
	Done  time.Time                          `json:"done,omitzero"` // the last reconciliation without an error
	Error string                             `json:"error,omitempty"`
}

// Federator federates.
type Federator struct {
	config   Config
	metrics  *metrics
	endpoint spiffeid.ID // zero: none
	status   watch.Value[Status]
	managed  []spiffeid.TrustDomain
	failing  string // the last error, "" since it works
}

// New reads which domains an earlier process set.
func New(c Config) (*Federator, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	f := &Federator{config: c, metrics: newMetrics(c.Metrics)}
	if err := f.setEndpoint(); err != nil {
		return nil, err
	}
	if err := f.recall(); err != nil {
		f.managed = nil
		c.Log.Error("which trust domains this agent has set in the SPIRE server is not known any more: it deletes none of them", "err", err)
	}
	return f, nil
}

// Status is the latest. Its maps must not be written.
func (f *Federator) Status() Status { return f.status.Latest() }

// Run federates until ctx is done.
func (f *Federator) Run(ctx context.Context) error {
	seen := mesh.Empty
	for {
		material, renewed := f.config.Source.Get()
		snapshot, changed := f.config.Store.Latest()
		seen = snapshot
		f.note(ctx, f.once(ctx, material, snapshot))
		if !f.wait(ctx, seen, changed, renewed) {
			return nil
		}
	}
}

// wait returns once there may be something to do; false: ctx is done. Changes of the store that concern no trust
// domain are not waited for less.
func (f *Federator) wait(ctx context.Context, seen *mesh.Snapshot, changed, renewed <-chan struct{}) bool {
	interval := time.NewTimer(f.config.Interval)
	defer interval.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-renewed:
			return true
		case <-interval.C:
			return true
		case <-changed:
			var now *mesh.Snapshot
			now, changed = f.config.Store.Latest()
			for key := range mesh.Diff(seen, now) {
				if key.Kind() == mesh.KindFederation {
					return true
				}
			}
			seen = now
		}
	}
}

// once does everything one time.
func (f *Federator) once(ctx context.Context, material *trust.Material, snapshot *mesh.Snapshot) error {
	bundle, err := f.config.Server.OwnBundle(ctx)
	if err != nil {
		return err // the server is away: so it would be for the rest
	}
	return errors.Join(f.publish(bundle, material), f.reconcile(ctx, snapshot))
}

// publish puts the own bundle into the mesh state, signed, if it or the signer's certificate changed:
// every signature is another one, so signing again would tell the whole mesh of nothing.
func (f *Federator) publish(bundle *trust.Bundle, signer *trust.Material) error {
	owner := f.config.Table.Owner()
	if bundle.TrustDomain != owner.Domain {
		return fmt.Errorf("the SPIRE server is of trust domain %q, the cluster was registered with %q: is it the right socket?", bundle.TrustDomain.Name(), owner.Domain.Name())
	}
	jwks, err := bundle.Marshal()
	if err != nil {
		return err
	}
	held, _ := f.config.Table.Get(own.Trust, mesh.FederationKey(owner.Domain.Name()))
	if was, ok := held.(*mesh.Federation); ok && bytes.Equal(was.Bundle, jwks) && was.EndpointURL == f.config.EndpointURL &&
		slices.EqualFunc(was.Chain, signer.Certificate.Certificate, bytes.Equal) {
		return nil
	}
	signature, chain, err := continuity.Sign(signer, owner.Domain, bundle.Sequence, jwks)
	if err != nil {
		return err
	}
	f.config.Log.Info("own bundle signed", "trust_domain", owner.Domain.Name(), "sequence", bundle.Sequence, "roots", len(bundle.X509))
	f.config.Table.Apply(own.Trust, mesh.Delta{Upserts: []mesh.Object{&mesh.Federation{
		TrustDomain: owner.Domain, Cluster: owner.Cluster, Sequence: bundle.Sequence, Bundle: jwks, Signature: signature, Chain: chain,
		EndpointURL: f.config.EndpointURL, EndpointID: f.endpoint,
	}}})
	return nil
}

// reconcile makes the SPIRE server trust whom the mesh knows.
func (f *Federator) reconcile(ctx context.Context, snapshot *mesh.Snapshot) error {
	desired := spire.Desired{
		Bundles: []spire.ForeignBundle{{TrustDomain: f.config.Plane, JWKS: f.config.PlaneBundle()}},
		Managed: f.managed, Complete: f.config.Complete(), Keep: f.config.Refused(), Remember: f.remember, Paths: f.config.Paths,
	}
	for federation := range snapshot.Federations() {
		if federation.TrustDomain != f.config.Table.Owner().Domain && federation.TrustDomain != f.config.Plane {
			desired.Bundles = append(desired.Bundles, spire.ForeignBundle{
				TrustDomain: federation.TrustDomain, JWKS: federation.Bundle,
				Endpoint: spire.Endpoint{URL: federation.EndpointURL, ID: federation.EndpointID},
			})
		}
	}
	status, err := f.config.Server.Reconcile(ctx, desired)
	if err != nil && status.Domains == nil {
		return err
	}
	f.tell(status)
	now := time.Now()
	next := Status{Status: status, Since: f.since(status, now), Done: now}
	if err != nil { // of some domains: what the server holds of the others is told all the same
		next.Done = f.Status().Done
		f.status.Set(next)
		return err
	}
	f.status.Set(next)
	f.metrics.done.SetToCurrentTime()
	f.metrics.domains.Set(float64(len(status.Domains)))
	return f.remember(status.Managed)
}

// tell logs what people must know, once.
func (f *Federator) tell(now spire.Status) {
	before := f.Status()
	for domain, s := range now.Domains {
		was := before.Domains[domain]
		if s.Problem != "" && was.Problem != s.Problem {
			f.config.Log.Error("bundle not taken by the SPIRE server; what it holds stays", "trust_domain", domain.Name(), "err", s.Problem)
		}
		if s.Authorities > 0 && (s.Sequence != was.Sequence || was.Authorities == 0) {
			f.config.Log.Info("bundle held by the SPIRE server", "trust_domain", domain.Name(), "sequence", s.Sequence, "roots", s.Authorities, "delivery", s.Delivery)
		}
	}
	for domain, was := range before.Domains {
		if _, still := now.Domains[domain]; !still && was.Authorities > 0 {
			f.config.Log.Info("trust domain taken out of the SPIRE server", "trust_domain", domain.Name())
		}
	}
	if len(now.Contested) > 0 && !slices.Equal(now.Contested, before.Contested) {
		f.config.Log.Error("somebody else takes the foreign trust domains out of these entries again: set federatesWith where they are made, or leave them to it with --federate-path",
			"entries", now.Contested[:min(len(now.Contested), 10)], "count", len(now.Contested))
	}
}

// since keeps the times of the sequences that are what they were.
func (f *Federator) since(now spire.Status, at time.Time) map[spiffeid.TrustDomain]time.Time {
	before, out := f.Status(), make(map[spiffeid.TrustDomain]time.Time, len(now.Domains)+1)
	keep := func(domain spiffeid.TrustDomain, is, was spire.DomainStatus) {
		out[domain] = at
		if held, ok := before.Since[domain]; ok && is.Sequence == was.Sequence && was.Authorities > 0 {
			out[domain] = held
		}
	}
	for domain, s := range now.Domains {
		keep(domain, s, before.Domains[domain])
	}
	keep(f.config.Table.Owner().Domain, now.Own, before.Own)
	return out
}

// setEndpoint checks the own endpoint; a SPIRE server answers there with its own identity.
func (f *Federator) setEndpoint() error {
	if f.config.EndpointURL == "" {
		return nil
	}
	owner := f.config.Table.Owner()
	id, err := spiffeid.FromPath(owner.Domain, "/spire/server")
	if err != nil {
		return fmt.Errorf("federate: %w", err)
	}
	f.endpoint = id
	probe := mesh.Federation{TrustDomain: owner.Domain, Cluster: owner.Cluster, Bundle: []byte("{}"), EndpointURL: f.config.EndpointURL, EndpointID: id}
	if err := probe.Validate(); err != nil {
		return fmt.Errorf("federate: %w", err)
	}
	return nil
}

// note logs an error once, not every few seconds, and its end.
func (f *Federator) note(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case err == nil && f.failing != "":
		f.failing = ""
		f.config.Log.Info("federation is up to date again")
		return
	case err == nil:
		return
	}
	f.metrics.failures.Inc()
	s := f.Status()
	if f.failing != err.Error() {
		f.config.Log.Warn("federation is not up to date, what is set stays in force; trying again", "err", err, "in", f.config.Interval)
	}
	f.failing, s.Error = err.Error(), err.Error()
	f.status.Set(s)
}

// managedName is the file of the domains that this agent set in the SPIRE server, and may delete from it.
const managedName = "federation.json"

func (f *Federator) remember(domains []spiffeid.TrustDomain) error {
	if slices.Equal(domains, f.managed) {
		return nil
	}
	names := make([]string, len(domains))
	for i, domain := range domains {
		names[i] = domain.Name()
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := durable.Write(filepath.Join(f.config.DataDir, managedName), data); err != nil {
		return err
	}
	f.managed = slices.Clone(domains)
	return nil
}

func (f *Federator) recall() error {
	data, err := os.ReadFile(filepath.Join(f.config.DataDir, managedName))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var names []string
	if err == nil {
		err = json.Unmarshal(data, &names)
	}
	if err != nil {
		return fmt.Errorf("federate: %w", err)
	}
	for _, name := range names {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("federate: %s: %w", managedName, err)
		}
		f.managed = append(f.managed, domain)
	}
	return nil
}
