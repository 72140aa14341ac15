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
	"github.com/periplus-mesh/periplus/cluster-agent/state"
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
	return nil
}

// Status of the federation, for people and for reports.
type Status struct {
	spire.Status
	Done  time.Time `json:"done,omitzero"` // the last reconciliation without an error
	Error string    `json:"error,omitempty"`
}

// Federator federates.
type Federator struct {
	config  Config
	metrics *metrics
	status  watch.Value[Status]
	managed []spiffeid.TrustDomain
}

// New reads which domains an earlier process set.
func New(c Config) (*Federator, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	f := &Federator{config: c, metrics: newMetrics(c.Metrics)}
	if err := f.recall(); err != nil {
		return nil, err
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
		err := f.publish(ctx, material)
		snapshot, changed := f.config.Store.Latest()
		seen = snapshot
		f.note(ctx, errors.Join(err, f.reconcile(ctx, snapshot)))
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

// publish puts the own bundle into the mesh state, signed, if it or the signer's certificate changed:
// every signature is another one, so signing again would tell the whole mesh of nothing.
func (f *Federator) publish(ctx context.Context, signer *trust.Material) error {
	bundle, err := f.config.Server.OwnBundle(ctx)
	if err != nil {
		return err
	}
	owner := f.config.Table.Owner()
	if bundle.TrustDomain != owner.Domain {
		return fmt.Errorf("the SPIRE server is of trust domain %q, the cluster was registered with %q: is it the right socket?", bundle.TrustDomain.Name(), owner.Domain.Name())
	}
	jwks, err := bundle.Marshal()
	if err != nil {
		return err
	}
	held, _ := f.config.Table.Get(own.Trust, mesh.FederationKey(owner.Domain.Name()))
	if was, ok := held.(*mesh.Federation); ok && bytes.Equal(was.Bundle, jwks) && slices.EqualFunc(was.Chain, signer.Certificate.Certificate, bytes.Equal) {
		return nil
	}
	signature, chain, err := continuity.Sign(signer, owner.Domain, bundle.Sequence, jwks)
	if err != nil {
		return err
	}
	f.config.Log.Info("own bundle signed", "trust_domain", owner.Domain.Name(), "sequence", bundle.Sequence, "roots", len(bundle.X509))
	f.config.Table.Apply(own.Trust, mesh.Delta{Upserts: []mesh.Object{&mesh.Federation{
		TrustDomain: owner.Domain, Cluster: owner.Cluster, Sequence: bundle.Sequence, Bundle: jwks, Signature: signature, Chain: chain,
	}}})
	return nil
}

// reconcile makes the SPIRE server trust whom the mesh knows.
func (f *Federator) reconcile(ctx context.Context, snapshot *mesh.Snapshot) error {
	desired := spire.Desired{
		Bundles: []spire.ForeignBundle{{TrustDomain: f.config.Plane, JWKS: f.config.PlaneBundle()}},
		Managed: f.managed, Complete: f.config.Complete(), Remember: f.remember,
	}
	for federation := range snapshot.Federations() {
		if federation.TrustDomain != f.config.Table.Owner().Domain && federation.TrustDomain != f.config.Plane {
			desired.Bundles = append(desired.Bundles, spire.ForeignBundle{TrustDomain: federation.TrustDomain, JWKS: federation.Bundle})
		}
	}
	status, err := f.config.Server.Reconcile(ctx, desired)
	if err != nil {
		return err
	}
	for domain, s := range status.Domains {
		if s.Problem != "" && f.Status().Domains[domain].Problem != s.Problem {
			f.config.Log.Error("bundle not taken by the SPIRE server; what it holds stays", "trust_domain", domain.Name(), "err", s.Problem)
		}
	}
	f.status.Set(Status{Status: status, Done: time.Now()})
	f.metrics.done.SetToCurrentTime()
	f.metrics.domains.Set(float64(len(status.Domains)))
	return f.remember(status.Managed)
}

// note logs an error once, not every few seconds.
func (f *Federator) note(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	f.metrics.failures.Inc()
	s := f.Status()
	if s.Error != err.Error() {
		f.config.Log.Warn("federation is not up to date; trying again", "err", err, "in", f.config.Interval)
	}
	s.Error = err.Error()
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
	if err := state.WriteFile(filepath.Join(f.config.DataDir, managedName), data); err != nil {
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
