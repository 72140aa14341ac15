package harness

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// SidecarOptions describe a sidecar.
type SidecarOptions struct {
	Name    string // unique in the cluster
	Service string // NAME.NAMESPACE
	// Account is its identity in namespace shop; "" is the service's name.
	Account string
	Zone    string
	// Host is the last number of its address; 0 is the next that is free.
	Host int
	// App is host:port of the application; "" for a sidecar that only sends.
	App string
	// Of the served port; 0 and "" are 80, http, and 15006 at the sidecar.
	Port     int
	Protocol string
	Inbound  int
	Labels   []string // KEY=VALUE
	Args     []string
}

// Sidecar is one that runs.
type Sidecar struct {
	*realdeps.Process
	// Address is the sidecar's IP address. Outbound takes the application's requests, Admin serves the admin
	// interface, Inbound the mesh: host:port.
	Address, Outbound, Admin, Inbound string
	// PortName is the name of the served port.
	PortName string
}

// Sidecar starts one and waits until it is ready.
func (c *Cluster) Sidecar(o SidecarOptions) *Sidecar {
	m := c.mesh
	m.t.Helper()
	host := o.Host
	if host == 0 {
		c.sidecars++
		host = 20 + c.sidecars
	}
	account, _, _ := strings.Cut(o.Service, ".")
	port, inbound := cmp.Or(o.Port, 80), cmp.Or(o.Inbound, 15006)
	protocol := or(o.Protocol, "http")
	address := c.Host(host)
	s := &Sidecar{
		Address: address, Outbound: address + ":15001", Admin: address + ":15014", Inbound: address + ":" + strconv.Itoa(inbound), PortName: protocol,
	}
	args := append([]string{
		"proxy", "--name", o.Name, "--service", o.Service, "--bind", address, "--outbound-port", "15001", "--zone", o.Zone,
		"--admin-address", s.Admin, "--data-dir", m.path("proxy", c.Name, o.Name),
	}, c.plane()...)
	if o.App != "" {
		args = append(args, "--inbound", fmt.Sprintf("%s:%d:%s:%d=%s", protocol, port, protocol, inbound, o.App))
	}
	for _, label := range o.Labels {
		args = append(args, "--label", label)
	}
	s.Process = realdeps.Run(m.t, "sidecar-"+o.Name, c.Binary(or(o.Account, account)), nil, append(args, o.Args...)...)
	m.MetricsURLs = append(m.MetricsURLs, "http://"+s.Admin+"/metrics")
	s.AwaitReady()
	return s
}

// AwaitReady waits until it is ready, after a Start.
func (s *Sidecar) AwaitReady() {
	s.Await(30*time.Second, realdeps.Answers(http.DefaultClient, "http://"+s.Admin+"/ready"))
}

// Gateway starts an east-west gateway and waits until it is ready.
func (c *Cluster) Gateway(name, zone string) *realdeps.Process {
	m := c.mesh
	m.t.Helper()
	c.gateways++
	address := c.Host(10 + c.gateways)
	args := append([]string{
		"eastwest", "--name", name, "--bind", address, "--port", "15443", "--zone", zone, "--admin-address", address + ":15014",
		"--data-dir", m.path("proxy", c.Name, name),
	}, c.plane()...)
	p := realdeps.Run(m.t, "gateway-"+name, c.Binary("gateway"), nil, args...)
	m.MetricsURLs = append(m.MetricsURLs, "http://"+address+":15014/metrics")
	p.Await(30*time.Second, realdeps.Answers(http.DefaultClient, "http://"+address+":15014/ready"))
	return p
}

// Services writes a services file, in which every service is exported, and returns its path for an agent's --services.
// Each service is NAME.NAMESPACE:PORT-NAME:PORT:PROTOCOL.
func (c *Cluster) Services(services ...string) string {
	c.mesh.t.Helper()
	var text strings.Builder
	for _, s := range services {
		parts := strings.Split(s, ":")
		name, namespace, _ := strings.Cut(parts[0], ".")
		fmt.Fprintf(&text, "---\napiVersion: periplus.io/v1\nkind: Service\nmetadata: {name: %s, namespace: %s}\nspec:\n  exported: true\n  ports:\n  - {name: %s, port: %s, protocol: %s}\n", name, namespace, parts[1], parts[2], parts[3])
	}
	return c.File("services.yaml", text.String())
}
