package up

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/credential"
	"github.com/periplus-mesh/periplus/global/pki"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// prepare makes what must be there before the first process: keys, binaries, service files, the context.
func (r *runner) prepare(context.Context) error {
	if err := r.plan.keys(); err != nil {
		return err
	}
	if err := r.plan.installBinaries(); err != nil {
		return err
	}
	if err := r.plan.writeServices(); err != nil {
		return err
	}
	return r.enterContext()
}

// keys makes the control plane's, or those that a start which was cut off has not made.
func (p *Plan) keys() error {
	dir, replicas, operators := p.path("pki"), []string(nil), []string{"up"}
	for i := range controllers {
		replicas = append(replicas, p.controllerName(i))
	}
	if !pki.Exists(dir) {
		return pki.Init(dir, planeDomain, replicas, operators)
	}
	_, err := pki.Add(dir, planeDomain, replicas, operators)
	return err
}

// authorities starts them and gives every workload its entry: which binary path is which SPIFFE ID.
func (r *runner) authorities(ctx context.Context) error {
	if err := r.wave(Authority)(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range r.plan.Clusters {
		group.Go(func() error {
			if err := r.entries(ctx, c); err != nil {
				return fmt.Errorf("cluster %q: %w", c.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (r *runner) entries(ctx context.Context, c Cluster) error {
	entries, err := r.plan.entries(c)
	if err != nil {
		return err
	}
	client, err := spire.Dial(r.plan.serverSocket(c))
	if err != nil {
		return err
	}
	defer client.Close()
	return retry(ctx, func() error { return client.EnsureEntries(ctx, entries) })
}

func (p *Plan) entries(c Cluster) (out []spire.Entry, err error) {
	domain, err := spiffeid.TrustDomainFromString(trustDomain(c.Name))
	if err != nil {
		return nil, err
	}
	parent, err := spiffeid.FromPath(domain, "/spire/agent/up")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, process := range p.Processes {
		id, ok, err := p.identity(domain, process)
		if err != nil {
			return nil, err
		}
		if !ok || process.Cluster != c.Name || seen[process.Identity] {
			continue
		}
		seen[process.Identity] = true
		out = append(out, spire.Entry{ID: id, ParentID: parent, Selectors: []string{"unix:path:" + p.Binary(process)}})
	}
	return out, nil
}

func (p *Plan) identity(domain spiffeid.TrustDomain, process Process) (id spiffeid.ID, ok bool, err error) {
	switch process.Role {
	case Agent:
		return mesh.AgentIdentity(domain), true, nil
	case Gateway:
		return mesh.GatewayIdentity(domain), true, nil
	case Sidecar:
		id, err = mesh.WorkloadIdentity{TrustDomain: domain, Namespace: "shop", Account: process.Identity}.ID()
		return id, true, err
	}
	return id, false, nil
}

// joinMargin is how long an agent's credential must still be good for it to be renewed and not replaced: controllers may
// take some time to be there.
const joinMargin = time.Minute

// joined tells whether a cluster's agent has a credential that it can go on with; not after the mesh was down for longer
// than a credential lives.
func (p *Plan) joined(c Cluster, now time.Time) bool {
	end, err := credential.Expiry(p.path("agent", c.Name))
	return err == nil && end.Sub(now) > joinMargin && exists(p.tokenFile(c))
}

// register registers the clusters whose agents have no credential, or one that has ended, as an operator would.
func (r *runner) register(ctx context.Context) error {
	client, err := r.plan.OperatorContext().Connect()
	if err != nil {
		return err
	}
	for _, c := range r.plan.Clusters {
		if r.plan.joined(c, time.Now()) {
			continue // an earlier run registered it; its agent renews what it has
		}
		request := connect.NewRequest(&pb.RegisterClusterRequest{Cluster: &pb.Cluster{
			Id: c.Name, Region: c.Region, TrustDomain: trustDomain(c.Name),
			Networks: []*pb.Network{{Name: c.Name, Cidrs: []string{c.CIDR}}},
		}})
		err := retry(ctx, func() error {
			response, err := client.Clusters.RegisterCluster(ctx, request)
			if err != nil {
				return err
			}
			return writeSecret(r.plan.tokenFile(c), response.Msg.GetToken())
		})
		if err != nil {
			return fmt.Errorf("cluster %q: %w", c.Name, err)
		}
	}
	return nil
}

func writeSecret(path, content string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o600)
}

// retry until it works or ctx ends: what was just started may not listen yet, or have no leader.
func retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}
