package admin

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/global/observe"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// StaleAfter is the silence after which a connected agent counts as stale.
const StaleAfter = 30 * time.Second

// Statuses of a cluster.
const (
	registered = "Registered"
	connected  = "Connected"
	stale      = "Stale"
	drained    = "Drained"
)

// Overview implements MeshService.
func (s *server) Overview(context.Context, *connect.Request[pb.OverviewRequest]) (*connect.Response[pb.OverviewResponse], error) {
	now, snapshot := time.Now(), s.latest()
	clusters := s.clusters(snapshot, now)
	return connect.NewResponse(&pb.OverviewResponse{
		Revision: uint64(snapshot.Revision()), Replica: s.ID, Leader: s.Replicas.Leader(), NowMs: now.UnixMilli(),
		Regions: regions(clusters), Clusters: clusters, Traffic: observe.Traffic(s.Board.View(now)),
		Services: services(snapshot), Members: s.members(now), StateAgeMs: age(s.Replicas.LeaderHeard(), now),
	}), nil
}

// age in milliseconds; -1 of what never was.
func age(at, now time.Time) int64 {
	if at.IsZero() {
		return -1
	}
	return max(now.Sub(at).Milliseconds(), 0)
}

// ListServices implements MeshService.
func (s *server) ListServices(context.Context, *connect.Request[pb.ListServicesRequest]) (*connect.Response[pb.ListServicesResponse], error) {
	return connect.NewResponse(&pb.ListServicesResponse{Items: services(s.latest())}), nil
}

// tally is what one cluster has.
type tally struct{ services, exported, endpoints, healthy, gateways uint32 }

func tallies(s *mesh.Snapshot) map[mesh.ClusterID]*tally {
	return s.Memo("admin tallies", func() any {
		out := make(map[mesh.ClusterID]*tally)
		of := func(id mesh.ClusterID) *tally {
			if out[id] == nil {
				out[id] = new(tally)
			}
			return out[id]
		}
		for _, object := range s.All() {
			switch o := object.(type) {
			case *mesh.Service:
				of(o.Cluster).service(o)
			case *mesh.EndpointSlice:
				of(o.Cluster).slice(o)
			case *mesh.Gateway:
				of(o.Cluster).gateways++
			}
		}
		return out
	}).(map[mesh.ClusterID]*tally)
}

func (t *tally) service(s *mesh.Service) {
	t.services++
	if s.Exported {
		t.exported++
	}
}

func (t *tally) slice(e *mesh.EndpointSlice) {
	t.endpoints += uint32(len(e.Endpoints))
	t.healthy += healthy(e)
}

func healthy(e *mesh.EndpointSlice) (n uint32) {
	for i := range e.Endpoints {
		if e.Endpoints[i].Health == mesh.Healthy {
			n++
		}
	}
	return n
}

// clusters describes every registered cluster, by name.
func (s *server) clusters(snapshot *mesh.Snapshot, now time.Time) (out []*pb.ClusterStatus) {
	counts, view := tallies(snapshot), s.Board.View(now)
	for c := range snapshot.Clusters() {
		status := &pb.ClusterStatus{Cluster: meshpb.EncodeCluster(c), Status: registered, LeaseAgeMs: -1}
		if t := counts[c.ID]; t != nil {
			status.Services, status.ExportedServices, status.Gateways = t.services, t.exported, t.gateways
			status.Endpoints, status.HealthyEndpoints = t.endpoints, t.healthy
		}
		if object, ok := snapshot.Get(mesh.FederationKey(c.TrustDomain.Name())); ok {
			status.BundleSequence = object.(*mesh.Federation).Sequence
		}
		if seen, ok := view[c.ID]; ok {
			describe(status, seen)
		}
		if c.State == mesh.ClusterDrained {
			status.Status = drained
		}
		out = append(out, status)
	}
	return out
}

func describe(status *pb.ClusterStatus, seen observe.Seen) {
	status.Status = stale
	if seen.Connected && seen.Age < StaleAfter {
		status.Status = connected
	}
	status.LeaseAgeMs, status.AgentVersion = seen.Age.Milliseconds(), seen.AgentVersion
	status.CredentialExpiresAtMs = seen.CredentialExpires.UnixMilli()
	status.Proxies = uint32(len(seen.Load.GetProxies()))
}

func regions(clusters []*pb.ClusterStatus) []*pb.RegionOverview {
	byName := make(map[string]*pb.RegionOverview)
	for _, c := range clusters {
		name := c.GetCluster().GetRegion()
		if byName[name] == nil {
			byName[name] = &pb.RegionOverview{Name: name}
		}
		r := byName[name]
		r.Clusters++
		r.Endpoints += c.GetEndpoints()
		r.HealthyEndpoints += c.GetHealthyEndpoints()
		r.Gateways += c.GetGateways()
	}
	var out []*pb.RegionOverview
	for _, r := range byName {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *pb.RegionOverview) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out
}

// services describes every service, by namespace and name.
func services(s *mesh.Snapshot) []*pb.ServiceStatus {
	return s.Memo("admin services", func() any {
		var out []*pb.ServiceStatus
		for name := range s.ServiceNames() {
			status := &pb.ServiceStatus{Name: meshpb.EncodeServiceName(name)}
			in := make(map[mesh.ClusterID]*pb.ServiceInCluster)
			for service := range s.Services(name) {
				c := &pb.ServiceInCluster{Cluster: string(service.Cluster), Exported: service.Exported}
				in[service.Cluster] = c
				status.Clusters = append(status.Clusters, c)
			}
			for slice := range s.Endpoints(name) {
				if c := in[slice.Cluster]; c != nil {
					c.Endpoints += uint32(len(slice.Endpoints))
					c.HealthyEndpoints += healthy(slice)
				}
			}
			out = append(out, status)
		}
		return out
	}).([]*pb.ServiceStatus)
}
