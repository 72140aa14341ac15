package up

import (
	"fmt"
	"path/filepath"
	"strconv"
)

// Process is one operating-system process of the mesh.
type Process struct {
	Name string
	// Identity is the binary's name below bin/CLUSTER: the authority tells workloads apart by the path that they
	// run from (SPIRE's unix:path selector).
	Identity string
	Cluster  string // "" for what belongs to none
	Role     Role
	Args     []string
	// Ready is a URL that answers 200 once the process does its work; "" means once it runs.
	Ready string
	// Listens are the TCP addresses, host:port, that it listens on from its start.
	Listens []string
}

// Role orders the start: a role starts when all before it are ready.
type Role int

// The roles, in order of start.
const (
	Controller Role = iota
	Authority
	Agent
	Gateway
	Shop
	Sidecar
	Traffic
)

var roleNames = [...]string{"controller", "authority", "agent", "gateway", "shop", "sidecar", "traffic"}

func (r Role) String() string { return roleNames[r] }

// The trust domain of the control plane; a cluster's is CLUSTER.mesh.
const planeDomain = "periplus.global"

func trustDomain(cluster string) string { return cluster + ".mesh" }

// Ports are the field's customary ones; every process has an address of its own.
const (
	portMesh      = 15012
	portRaft      = 15013
	portAdmin     = 15014 // of controllers: the admin API; of everything else: metrics and readiness
	portDashboard = 8080
	portOutbound  = 15001
	portInbound   = 15006
	portGateway   = 15443
	portInGRPC    = 15007
	portInEcho    = 15008
)

// stock is the service that also answers gRPC and plain TCP, so that there is something to try them on.
const (
	stock         = "inventory"
	stockGRPCPort = 9090
	stockEchoPort = 9000
)

// drainTime is short: nothing in the shop takes longer.
const drainTime = "3s"

// shop is the services in the order in which they ask each other.
var shop = []string{"storefront", "catalog", "inventory"}

// visitor is the sidecar that the visitors of a zone send through.
const visitor = "visitor"

var zones = []string{"a", "b"}

const controllers = 3

// Plan is everything that runs.
type Plan struct {
	Options
	Clusters  []Cluster
	Processes []Process
}

// Cluster is one cluster of the plan.
type Cluster struct {
	Name, Region string
	CIDR         string
	number       int
}

// NewPlan lays out the processes; equal options give equal plans.
func NewPlan(o Options) (*Plan, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	p := &Plan{Options: o}
	for i := range o.Clusters {
		p.Clusters = append(p.Clusters, Cluster{regions[i], regions[i], fmt.Sprintf("%s.%d.0/24", o.Prefix, i+1), i + 1})
	}
	for i := range controllers {
		p.Processes = append(p.Processes, p.controller(i))
	}
	for _, add := range []func(Cluster) []Process{p.authority, p.agent, p.gateways, p.shops, p.sidecars} {
		for _, c := range p.Clusters {
			p.Processes = append(p.Processes, add(c)...)
		}
	}
	p.Processes = append(p.Processes, p.traffic())
	return p, nil
}

// address of a host in a cluster's /24. Numbers: 1 controller, 2 agent, 11+ gateways, 21+ sidecars, 101+ shop.
func (p *Plan) address(number, host int) string {
	return fmt.Sprintf("%s.%d.%d", p.Prefix, number, host)
}

func at(address string, port int) string { return address + ":" + strconv.Itoa(port) }

func each(address string, ports ...int) (out []string) {
	for _, port := range ports {
		out = append(out, at(address, port))
	}
	return out
}

func ready(address string, port int) string { return "http://" + at(address, port) + "/ready" }

func (p *Plan) path(parts ...string) string {
	return filepath.Join(append([]string{p.Dir}, parts...)...)
}

func (p *Plan) controllerName(i int) string { return "controller-" + regions[i] }

func (p *Plan) controller(i int) Process {
	own := p.address(i+1, 1)
	args := []string{
		"global", "run", "--id", p.controllerName(i), "--region", regions[i], "--data-dir", p.path("global", regions[i]),
		"--pki", p.path("pki", p.controllerName(i)), "--bootstrap",
		"--mesh-address", at(own, portMesh), "--raft-address", at(own, portRaft),
		"--admin-address", at(own, portAdmin), "--dashboard-address", at(own, portDashboard),
	}
	for j := range controllers {
		peer := p.address(j+1, 1)
		args = append(args, "--peer", p.controllerName(j)+"="+at(peer, portRaft)+"="+at(peer, portMesh))
	}
	return Process{
		Name: p.controllerName(i), Identity: "controller", Cluster: "", Role: Controller, Args: args,
		Ready: ready(own, portDashboard), Listens: each(own, portMesh, portRaft, portAdmin, portDashboard),
	}
}

func (p *Plan) workloadSocket(c Cluster) string {
	return "unix://" + p.path("authority", c.Name, "workload.sock")
}

func (p *Plan) serverSocket(c Cluster) string {
	return "unix://" + p.path("authority", c.Name, "server.sock")
}

func (p *Plan) authority(c Cluster) []Process {
	dir := p.path("authority", c.Name)
	return []Process{{
		Name: "authority-" + c.Name, Identity: "authority", Cluster: c.Name, Role: Authority, Args: []string{
			"authority", "--trust-domain", trustDomain(c.Name), "--data-dir", dir, "--svid-ttl", p.SVIDTTL,
			"--server-socket", p.serverSocket(c), "--workload-socket", p.workloadSocket(c),
		},
	}}
}

func (p *Plan) tokenFile(c Cluster) string    { return p.path("tokens", c.Name) }
func (p *Plan) servicesFile(c Cluster) string { return p.path("clusters", c.Name, "services.yaml") }

func (p *Plan) agent(c Cluster) []Process {
	own := p.address(c.number, 2)
	return []Process{{
		Name: "agent-" + c.Name, Identity: "agent", Cluster: c.Name, Role: Agent, Args: []string{
			"agent", "--data-dir", p.path("agent", c.Name), "--join-token-file", p.tokenFile(c),
			"--address", at(own, portMesh), "--admin-address", at(own, portAdmin), "--services", p.servicesFile(c),
			"--workload-socket", p.workloadSocket(c), "--server-socket", p.serverSocket(c),
		},
		Ready: ready(own, portAdmin), Listens: each(own, portMesh, portAdmin),
	}}
}

// plane are the flags by which a proxy finds its agent and, if that is gone, the controllers.
func (p *Plan) plane(c Cluster) []string {
	args := []string{
		"--cluster", c.Name, "--network", c.Name, "--region", c.Region, "--workload-socket", p.workloadSocket(c),
		"--agent", at(p.address(c.number, 2), portMesh), "--control-plane", planeDomain, "--drain-time", drainTime,
	}
	for i := range controllers {
		// The own region's controller first.
		args = append(args, "--controller", at(p.address((c.number-1+i)%controllers+1, 1), portMesh))
	}
	return args
}

func (p *Plan) gateways(c Cluster) (out []Process) {
	for i, zone := range zones {
		own := p.address(c.number, 11+i)
		name := fmt.Sprintf("gateway-%s-%s", c.Name, zone)
		args := append([]string{
			"eastwest", "--name", name, "--bind", own, "--port", strconv.Itoa(portGateway), "--zone", c.Region + "-" + zone,
			"--admin-address", at(own, portAdmin), "--data-dir", p.path("proxy", name),
		}, p.plane(c)...)
		out = append(out, Process{
			Name: name, Identity: "gateway", Cluster: c.Name, Role: Gateway, Args: args, Ready: ready(own, portAdmin),
			Listens: each(own, portGateway, portAdmin),
		})
	}
	return out
}

func (p *Plan) appAddress(c Cluster, zone, service int) string {
	return at(p.address(c.number, 101+zone), portDashboard+service)
}

// sidecarAddress: service counts the shop's services, and after them the visitor.
func (p *Plan) sidecarAddress(c Cluster, zone, service int) string {
	return p.address(c.number, 21+zone*10+service)
}

func (p *Plan) shops(c Cluster) (out []Process) {
	for z, zone := range zones {
		args := []string{"demo", "shop", "--cluster", c.Name, "--region", c.Region, "--zone", c.Region + "-" + zone}
		listens := each(p.address(c.number, 101+z), stockGRPCPort, stockEchoPort)
		for s, service := range shop {
			listens = append(listens, p.appAddress(c, z, s))
			flag := service + "=" + p.appAddress(c, z, s)
			if s+1 < len(shop) {
				flag += "=" + shop[s+1] + ".shop@" + at(p.sidecarAddress(c, z, s), portOutbound)
			}
			args = append(args, "--service", flag)
		}
		args = append(args, "--grpc", stock+"="+listens[0], "--echo", stock+"="+listens[1])
		out = append(out, Process{
			Name: fmt.Sprintf("shop-%s-%s", c.Name, zone), Identity: "shop", Cluster: c.Name, Role: Shop, Args: args,
			Ready: "http://" + p.appAddress(c, z, 0) + "/healthz", Listens: listens,
		})
	}
	return out
}

func (p *Plan) sidecars(c Cluster) (out []Process) {
	for z, zone := range zones {
		for s, service := range append(shop, visitor) {
			out = append(out, p.sidecar(c, z, zone, s, service))
		}
	}
	return out
}

func (p *Plan) sidecar(c Cluster, z int, zone string, s int, service string) Process {
	own := p.sidecarAddress(c, z, s)
	name := fmt.Sprintf("%s-%s-%s", service, c.Name, zone)
	args := append([]string{
		"proxy", "--name", name, "--service", service + ".shop", "--bind", own, "--outbound-port", strconv.Itoa(portOutbound),
		"--zone", c.Region + "-" + zone, "--label", "app=" + service, "--label", "version=v" + strconv.Itoa(z+1),
		"--admin-address", at(own, portAdmin), "--data-dir", p.path("proxy", name),
	}, p.plane(c)...)
	listens := each(own, portOutbound, portAdmin)
	switch service {
	case visitor:
		args = append(args, "--tcp-outbound")
	case stock:
		listens = append(listens, each(own, portInGRPC, portInEcho)...)
		args = append(args,
			"--inbound", fmt.Sprintf("grpc:%d:grpc:%d=%s", stockGRPCPort, portInGRPC, at(p.address(c.number, 101+z), stockGRPCPort)),
			"--inbound", fmt.Sprintf("echo:%d:tcp:%d=%s", stockEchoPort, portInEcho, at(p.address(c.number, 101+z), stockEchoPort)))
		fallthrough
	default:
		listens = append(listens, at(own, portInbound))
		args = append(args, "--inbound", fmt.Sprintf("http:80:http:%d=%s", portInbound, p.appAddress(c, z, s)))
	}
	return Process{
		Name: name, Identity: service, Cluster: c.Name, Role: Sidecar, Args: args, Ready: ready(own, portAdmin), Listens: listens,
	}
}

func (p *Plan) trafficAddress() string { return at(p.Prefix+".0.1", 8090) }

func (p *Plan) traffic() Process {
	args := []string{
		"demo", "traffic", "--service", "storefront.shop", "--rate", strconv.FormatFloat(p.Rate, 'g', -1, 64), "--address", p.trafficAddress(),
	}
	for _, c := range p.Clusters {
		for z, zone := range zones {
			args = append(args, "--visitor", c.Region+"/"+c.Region+"-"+zone+"="+at(p.sidecarAddress(c, z, len(shop)), portOutbound))
		}
	}
	return Process{
		Name: "traffic", Identity: "traffic", Role: Traffic, Args: args, Ready: "http://" + p.trafficAddress() + "/ready",
		Listens: []string{p.trafficAddress()},
	}
}

// AdminServers are host:port of every controller's admin API.
func (p *Plan) AdminServers() (out []string) {
	for i := range controllers {
		out = append(out, at(p.address(i+1, 1), portAdmin))
	}
	return out
}

// DashboardURL is where people look.
func (p *Plan) DashboardURL(i int) string {
	return "http://" + at(p.address(i+1, 1), portDashboard) + "/"
}

// Binary is the path that a process runs from.
func (p *Plan) Binary(process Process) string {
	return p.path("bin", process.Cluster, process.Identity)
}
