package proxy

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/periplus-mesh/periplus/internal/ads/adsclient"
	"github.com/periplus-mesh/periplus/internal/xds"
	"github.com/periplus-mesh/periplus/proxy/config"
)

// authorizeAgent accepts the agent of the own trust domain.
func (s *sidecar) authorizeAgent(peer spiffeid.ID) error {
	material, _ := s.source.Get()
	if own := material.ID.TrustDomain(); peer.TrustDomain() != own || peer.Path() != "/periplus/agent" {
		return fmt.Errorf("peer is %q, want the agent of %q", peer, own.Name())
	}
	return nil
}

// authorizeController accepts any replica of the control plane.
func (s *sidecar) authorizeController(peer spiffeid.ID) error {
	if peer.TrustDomain() != s.config.plane || !strings.HasPrefix(peer.Path(), "/controller/") {
		return fmt.Errorf("peer is %q, want a controller of %q", peer, s.config.plane.Name())
	}
	return nil
}

func (s *sidecar) targets() []adsclient.Target {
	var targets []adsclient.Target
	if s.config.Agent != "" {
		targets = append(targets, adsclient.Target{Name: "agent", Address: s.config.Agent, Authorize: s.authorizeAgent})
	}
	for _, address := range s.config.Controllers {
		targets = append(targets, adsclient.Target{Name: "controller " + address, Address: address, Authorize: s.authorizeController})
	}
	return targets
}

// node says of the workload what shapes its own listeners.
func (c *Config) node() (*corev3.Node, error) {
	labels := map[string]any{}
	for key, value := range c.Labels {
		labels[key] = value
	}
	inbound := []any{}
	for _, in := range c.Inbound {
		inbound = append(inbound, map[string]any{
			"SERVICE": in.Service, "PORT_NAME": in.PortName, "SERVICE_PORT": float64(in.ServicePort), "PROTOCOL": in.Protocol,
			"ENDPOINT_PORT": float64(in.EndpointPort), "APP": in.App,
		})
	}
	metadata, err := structpb.NewStruct(map[string]any{
		"NETWORK": c.Network, "BIND": c.Bind.String(), "OUTBOUND_PORT": float64(c.OutboundPort), "TCP_OUTBOUND": c.TCPOutbound,
		"LABELS": labels, "INBOUND": inbound,
	})
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	return &corev3.Node{
		Id: "sidecar~" + c.Cluster + "~" + c.Name, Cluster: c.Service, Metadata: metadata,
		Locality: &corev3.Locality{Region: c.Region, Zone: c.Zone, SubZone: c.Subzone},
	}, nil
}

// followXDS keeps the configuration up to date.
func (s *sidecar) followXDS(ctx context.Context) error {
	c := adsclient.Config{
		Targets: s.targets(), Source: s.source, Node: s.node, Wildcard: []xds.Type{xds.Cluster, xds.Listener}, Follow: true,
		Apply: s.apply, Log: s.config.Log, Metrics: s.config.Metrics, Status: &s.plane,
	}
	if s.config.DataDir != "" {
		c.DiskCache = filepath.Join(s.config.DataDir, "xds")
	}
	return adsclient.Run(ctx, c)
}

// apply takes in an update; the error is the NACK.
func (s *sidecar) apply(u adsclient.Update) error {
	now := time.Now()
	update := config.Update{Type: u.Type, Removed: u.Removed}
	for _, item := range u.Upserts {
		update.Upserts = append(update.Upserts, config.Resource{
			Name: item.Name, Version: item.Version.String(), Body: item.Body, Updated: now,
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.builder.Apply(update)
	s.clusters.Update(next)
	s.current.Set(next)
	if err != nil {
		s.metrics.refused.Inc()
	}
	s.metrics.updated.Set(float64(now.Unix()))
	return err
}

// resources are what is in force of a type.
func (s *sidecar) resources(t xds.Type) []config.Resource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.builder.Resources(t)
}
