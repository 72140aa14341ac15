package workload

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cluster-agent/own"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// maxServices that one workload may be an endpoint of.
const maxServices = 64

// announced is an announcement that was understood.
type announced struct {
	name       name
	draining   bool
	objects    []mesh.Object
	ports      map[mesh.ServiceName][]mesh.ServicePort
	rejections []*pb.Rejection
}

// read turns what peer says into objects. Services that are wrong are rejected one by one; an error means that
// nothing of it stands.
func (r *Registry) read(peer spiffeid.ID, request *pb.AnnounceRequest) (*announced, error) {
	if strings.HasPrefix(request.GetName(), "_") {
		return nil, fmt.Errorf("name %q: must not begin with an underscore", request.GetName())
	}
	address, err := netip.ParseAddr(request.GetAddress())
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	cluster := r.config.Cluster()
	if err := place(cluster, request); err != nil {
		return nil, err
	}
	if err := cluster.Admits(mesh.Network(request.GetNetwork()), address); err != nil {
		return nil, err
	}
	if peer == mesh.GatewayIdentity(r.config.Table.Owner().Domain) {
		return r.readGateway(request, address)
	}
	return r.readWorkload(peer, request, address)
}

// place fills in what the registration leaves no choice of, and refuses another region than the cluster's.
func place(cluster *mesh.Cluster, request *pb.AnnounceRequest) error {
	if request.GetNetwork() == "" && len(cluster.Networks) == 1 {
		request.Network = string(cluster.Networks[0].Name)
	}
	if request.Locality == nil {
		request.Locality = &pb.Locality{}
	}
	if request.Locality.Region == "" {
		request.Locality.Region = cluster.Region
	}
	if request.Locality.Region != cluster.Region {
		return fmt.Errorf("region %q is not cluster %q's, which is %q", request.Locality.Region, cluster.ID, cluster.Region)
	}
	return nil
}

func (r *Registry) readGateway(request *pb.AnnounceRequest, address netip.Addr) (*announced, error) {
	port := request.GetGateway().GetPort()
	if request.GetGateway() == nil || len(request.GetServices()) > 0 || port > math.MaxUint16 {
		return nil, fmt.Errorf("a gateway announces its port (1..65535) and no services")
	}
	g := &mesh.Gateway{
		Cluster: r.config.Table.Owner().Cluster, Name: request.GetName(), Network: mesh.Network(request.GetNetwork()),
		Address: address, Port: uint16(port), Locality: meshpb.DecodeLocality(request.GetLocality()),
		Health: meshpb.DecodeHealth(request.GetHealth()),
	}
	if err := g.Validate(); err != nil {
		return nil, err
	}
	return &announced{name: name{"", g.Name}, draining: g.Health == mesh.Draining, objects: []mesh.Object{g}}, nil
}

func (r *Registry) readWorkload(peer spiffeid.ID, request *pb.AnnounceRequest, address netip.Addr) (*announced, error) {
	identity, err := mesh.ParseWorkloadIdentity(peer)
	switch {
	case err != nil:
		return nil, err
	case request.GetGateway() != nil:
		return nil, fmt.Errorf("identity %q is not the gateways' %q", peer, mesh.GatewayIdentity(r.config.Table.Owner().Domain))
	case len(request.GetServices()) > maxServices:
		return nil, fmt.Errorf("%d services, at most %d", len(request.GetServices()), maxServices)
	case !r.config.Cluster().AdmitsNamespace(identity.Namespace):
		return nil, fmt.Errorf("namespace %q is not one that cluster %q may publish in", identity.Namespace, r.config.Table.Owner().Cluster)
	}
	a := &announced{name: name{identity.Namespace, request.GetName()}, ports: map[mesh.ServiceName][]mesh.ServicePort{}}
	template := mesh.Endpoint{
		Name: request.GetName(), Address: address, Network: mesh.Network(request.GetNetwork()),
		Locality: meshpb.DecodeLocality(request.GetLocality()), Health: meshpb.DecodeHealth(request.GetHealth()),
		Weight: max(request.GetWeight(), 1), Labels: request.GetLabels(), Identity: peer,
	}
	a.draining = template.Health == mesh.Draining
	for _, service := range request.GetServices() {
		if err := r.readService(a, template, service); err != nil {
			key := mesh.ServiceKey(mesh.ServiceName{Namespace: identity.Namespace, Name: service.GetName()}, r.config.Table.Owner().Cluster)
			a.rejections = append(a.rejections, &pb.Rejection{Key: string(key), Reason: err.Error()})
		}
	}
	return a, nil
}

func (r *Registry) readService(a *announced, endpoint mesh.Endpoint, service *pb.AnnouncedService) error {
	serviceName, err := serviceIn(a.name.namespace, service.GetName())
	if err != nil {
		return err
	}
	if _, twice := a.ports[serviceName]; twice {
		return fmt.Errorf("service %q is announced twice", serviceName)
	}
	cluster := r.config.Table.Owner().Cluster
	ports := make([]mesh.ServicePort, 0, len(service.GetPorts()))
	endpoint.Ports = map[string]uint16{}
	for _, p := range service.GetPorts() {
		if p.GetPort() > math.MaxUint16 || p.GetEndpointPort() > math.MaxUint16 {
			return fmt.Errorf("port %q: %d or %d is outside 1..65535", p.GetName(), p.GetPort(), p.GetEndpointPort())
		}
		ports = append(ports, mesh.ServicePort{Name: p.GetName(), Port: uint16(p.GetPort()), Protocol: mesh.Protocol(p.GetProtocol())})
		endpoint.Ports[p.GetName()] = uint16(p.GetEndpointPort())
	}
	made := &mesh.Service{Name: serviceName, Cluster: cluster, Ports: ports}
	slice := &mesh.EndpointSlice{Service: serviceName, Cluster: cluster, Slice: a.name.name, Endpoints: []mesh.Endpoint{endpoint}}
	if err := made.Validate(); err != nil {
		return err
	}
	if err := slice.Validate(); err != nil {
		return err
	}
	if err := r.fits(a.name, made); err != nil {
		return err
	}
	a.ports[serviceName] = ports
	a.objects = append(a.objects, slice)
	return nil
}

// serviceIn reads "name" or "name.namespace"; the namespace can only be the caller's own.
func serviceIn(namespace, text string) (mesh.ServiceName, error) {
	if !strings.Contains(text, ".") {
		text += "." + namespace
	}
	service, err := mesh.ParseServiceName(text)
	if err == nil && service.Namespace != namespace {
		err = fmt.Errorf("service %q is not in the caller's namespace %q", service, namespace)
	}
	return service, err
}

// fits tells why the ports contradict the services file or, where that does not define the service, the others.
func (r *Registry) fits(n name, s *mesh.Service) error {
	if object, ok := r.config.Table.Get(own.File, s.Key()); ok {
		for _, port := range s.Ports {
			if err := inFile(object.(*mesh.Service), port); err != nil {
				return err
			}
		}
		return nil
	}
	if object, ok := r.config.Table.Get(own.Workloads, s.Key()); ok && contains(object.(*mesh.Service).Ports, s.Ports) {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	others := r.portsOf(s.Name, n)
	for _, port := range s.Ports {
		if err := conflict(others, port); err != nil {
			return err
		}
	}
	return nil
}

func contains(all, some []mesh.ServicePort) bool {
	for _, port := range some {
		if !slices.Contains(all, port) {
			return false
		}
	}
	return true
}

func inFile(s *mesh.Service, port mesh.ServicePort) error {
	for _, defined := range s.Ports {
		if defined.Name == port.Name {
			return nil // number and protocol are the file's to say
		}
	}
	return fmt.Errorf("port %q is not one that the services file gives service %q", port.Name, s.Name)
}

// unhealthy returns copies of objects that nobody shall pick.
func unhealthy(objects []mesh.Object) []mesh.Object {
	out := make([]mesh.Object, 0, len(objects))
	for _, object := range objects {
		switch o := object.(type) {
		case *mesh.Gateway:
			changed := *o
			changed.Health = mesh.Unhealthy
			object = &changed
		case *mesh.EndpointSlice:
			changed := *o
			changed.Endpoints = append([]mesh.Endpoint(nil), o.Endpoints...)
			for i := range changed.Endpoints {
				changed.Endpoints[i].Health = mesh.Unhealthy
			}
			object = &changed
		}
		out = append(out, object)
	}
	return out
}
