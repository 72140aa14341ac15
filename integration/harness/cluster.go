package harness

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/integration/realdeps"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/up"
	"github.com/periplus-mesh/periplus/trust/spire"
)

// ClusterOptions describe a cluster to register.
type ClusterOptions struct {
	Name string
	// Region; "" is the cluster's name. TrustDomain; "" is NAME.test. Network; "" is the cluster's name.
	Region, TrustDomain, Network string
	// CIDR of the network; "" is PREFIX.n.0/24, n being the cluster's number. Clusters that share a network name both
	// their own part of it.
	CIDR string
	// Namespaces that it may publish in; none: all.
	Namespaces []string
}

// Cluster is a registered cluster and the processes of it.
type Cluster struct {
	ClusterOptions
	// Number is the third number of the cluster's addresses.
	Number int
	// TokenFile has the join token.
	TokenFile string
	// Of its authority: sockets as unix:///path, and the parent of entries.
	WorkloadSocket, ServerSocket, ParentID string
	// AgentProgram is the command that Agent runs: periplus, or periplus-agent.
	AgentProgram string
	// AgentAddress is where proxies reach the agent, AgentAdmin its admin interface; host:port.
	AgentAddress, AgentAdmin string
	// AgentNames are DNS names in the agent's SVID, for clients that verify host names.
	AgentNames         []string
	mesh               *Mesh
	entries            map[string]bool
	sidecars, gateways int
}

// Cluster registers one.
func (m *Mesh) Cluster(o ClusterOptions) *Cluster {
	m.t.Helper()
	m.clusters++
	c := &Cluster{ClusterOptions: o, Number: m.clusters, mesh: m, entries: map[string]bool{}, AgentProgram: "periplus"}
	c.Region, c.TrustDomain, c.Network = or(o.Region, o.Name), or(o.TrustDomain, o.Name+".test"), or(o.Network, o.Name)
	c.CIDR = or(o.CIDR, fmt.Sprintf("%s.%d.0/24", m.Prefix, c.Number))
	c.AgentAddress, c.AgentAdmin = c.Host(2)+":15012", c.Host(2)+":15014"
	c.Register()
	return c
}

// Register registers the cluster, again if need be, and writes a new token.
func (c *Cluster) Register() {
	m := c.mesh
	m.t.Helper()
	request := connect.NewRequest(&pb.RegisterClusterRequest{Cluster: &pb.Cluster{
		Id: c.Name, Region: c.Region, TrustDomain: c.TrustDomain, Namespaces: c.Namespaces,
		Networks: []*pb.Network{{Name: c.Network, Cidrs: []string{c.CIDR}}},
	}})
	Eventually(m.t, 20*time.Second, "registration of "+c.Name, func() error {
		response, err := m.Client.Clusters.RegisterCluster(context.Background(), request)
		if err != nil {
			return err
		}
		c.TokenFile = m.path("tokens", c.Name)
		if err := os.MkdirAll(filepath.Dir(c.TokenFile), 0o700); err != nil {
			return err
		}
		return os.WriteFile(c.TokenFile, []byte(response.Msg.GetToken()), 0o600)
	})
}

// Host is an address of the cluster; numbers 1 to 20 are the harness's, sidecars follow from 21.
func (c *Cluster) Host(number int) string {
	return fmt.Sprintf("%s.%d.%d", c.mesh.Prefix, c.Number, number)
}

// Authority starts the embedded authority for the cluster.
func (c *Cluster) Authority(args ...string) *realdeps.Process {
	c.mesh.t.Helper()
	dir := c.mesh.path("au", c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.mesh.t.Fatal(err)
	}
	c.ServerSocket, c.WorkloadSocket = "unix://"+dir+"/server.sock", "unix://"+dir+"/workload.sock"
	c.ParentID = "spiffe://" + c.TrustDomain + "/spire/agent/test"
	all := append([]string{"authority", "--trust-domain", c.TrustDomain, "--data-dir", dir, "--server-socket", c.ServerSocket, "--workload-socket", c.WorkloadSocket}, args...)
	return realdeps.Run(c.mesh.t, "authority-"+c.Name, c.mesh.Program("periplus"), nil, all...)
}

// UseSPIRE makes a real SPIRE the cluster's authority.
func (c *Cluster) UseSPIRE(s *realdeps.SPIRE) {
	c.ServerSocket, c.WorkloadSocket, c.ParentID = s.ServerSocket, s.WorkloadSocket, s.AgentID
}

// Binary is a path to run periplus from as identity: "agent", "gateway", or an account of namespace shop. The
// authority gets an entry that tells workloads by the path of their program.
func (c *Cluster) Binary(identity string) string {
	c.mesh.t.Helper()
	return c.BinaryOf(identity, c.mesh.Program("periplus"))
}

// BinaryOf is Binary for another program.
func (c *Cluster) BinaryOf(identity, program string) string {
	m := c.mesh
	m.t.Helper()
	path := m.path("run", c.Name, identity, filepath.Base(program))
	if c.entries[path] {
		return path
	}
	if err := up.CopyFile(program, path); err != nil {
		m.t.Fatal(err)
	}
	entry := spire.Entry{ID: c.ID(identity), Selectors: []string{"unix:path:" + path}}
	if identity == "agent" {
		entry.DNSNames = c.AgentNames
	}
	c.ensure(entry)
	c.entries[path] = true
	return path
}

// ID is the SPIFFE ID that Binary's identity stands for.
func (c *Cluster) ID(identity string) spiffeid.ID {
	c.mesh.t.Helper()
	domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
	if err != nil {
		c.mesh.t.Fatal(err)
	}
	switch identity {
	case "agent":
		return mesh.AgentIdentity(domain)
	case "gateway":
		return mesh.GatewayIdentity(domain)
	}
	id, err := mesh.WorkloadIdentity{TrustDomain: domain, Namespace: "shop", Account: identity}.ID()
	if err != nil {
		c.mesh.t.Fatal(err)
	}
	return id
}

// Entry makes the authority give id to the processes with all of the selectors.
func (c *Cluster) Entry(id spiffeid.ID, selectors ...string) {
	c.mesh.t.Helper()
	c.ensure(spire.Entry{ID: id, Selectors: selectors})
}

func (c *Cluster) ensure(entry spire.Entry) {
	c.mesh.t.Helper()
	parent, err := spiffeid.FromString(c.ParentID)
	if err != nil {
		c.mesh.t.Fatal(err)
	}
	entry.ParentID = parent
	client, err := spire.Dial(c.ServerSocket)
	if err != nil {
		c.mesh.t.Fatal(err)
	}
	defer client.Close()
	Eventually(c.mesh.t, 20*time.Second, "entry of "+entry.ID.String(), func() error {
		return client.EnsureEntries(context.Background(), []spire.Entry{entry})
	})
}

// Agent starts the cluster's agent with more flags, and waits until it is ready.
func (c *Cluster) Agent(args ...string) *realdeps.Process {
	c.mesh.t.Helper()
	p := c.StartAgent(args...)
	c.AwaitAgent(p)
	return p
}

// StartAgent starts the agent and does not wait.
func (c *Cluster) StartAgent(args ...string) *realdeps.Process {
	m := c.mesh
	m.t.Helper()
	all := []string{
		"--data-dir", m.path("agent", c.Name), "--join-token-file", c.TokenFile, "--address", c.AgentAddress,
		"--admin-address", c.AgentAdmin, "--workload-socket", c.WorkloadSocket, "--server-socket", c.ServerSocket,
	}
	if c.AgentProgram == "periplus" {
		all = append([]string{"agent"}, all...)
	}
	m.MetricsURLs = append(m.MetricsURLs, "http://"+c.AgentAdmin+"/metrics")
	return realdeps.Run(m.t, "agent-"+c.Name, c.BinaryOf("agent", m.Program(c.AgentProgram)), nil, append(all, args...)...)
}

// AwaitAgent waits until the agent is ready.
func (c *Cluster) AwaitAgent(p *realdeps.Process) {
	c.mesh.t.Helper()
	p.Await(45*time.Second, realdeps.Answers(http.DefaultClient, "http://"+c.AgentAdmin+"/ready"))
}

// plane are the flags by which a proxy finds its agent and the controllers.
func (c *Cluster) plane() []string {
	args := []string{
		"--cluster", c.Name, "--network", c.Network, "--region", c.Region, "--workload-socket", c.WorkloadSocket,
		"--agent", c.AgentAddress, "--control-plane", Plane, "--drain-time", "2s",
	}
	for i := range c.mesh.Options.Controllers {
		args = append(args, "--controller", c.mesh.ControllerAddress(i))
	}
	return args
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
