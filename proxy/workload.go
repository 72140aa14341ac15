package proxy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	periplusv1 "github.com/periplus-mesh/periplus/api/periplus/v1"
)

// wanting is how many probes in a row must fail before the application counts as unwell.
const wanting = 2

// probeApp follows the application's health: a connection to each of its ports, or a GET.
func (s *sidecar) probeApp(ctx context.Context) error {
	failed := 0
	ticker := time.NewTicker(s.config.HealthInterval)
	defer ticker.Stop()
	for {
		err := s.config.askApp(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if failed++; err == nil {
			failed = 0
		}
		state := appState{known: true, healthy: err == nil || failed < wanting && s.app.Latest().healthy}
		if old := s.app.Latest(); old != state {
			s.config.Log.Info("application", "healthy", state.healthy, "err", err)
			s.app.Set(state)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// appState is what the probe found; not known before the first.
type appState struct{ known, healthy bool }

func (c *Config) askApp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, max(c.HealthInterval, time.Second))
	defer cancel()
	for _, in := range c.Inbound {
		if err := c.askPort(ctx, in.App); err != nil {
			return fmt.Errorf("port %q: %w", in.PortName, err)
		}
	}
	return nil
}

func (c *Config) askPort(ctx context.Context, address string) error {
	if c.HealthPath == "" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+c.HealthPath, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 400 {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

// announce sets the announcement that is due; none before the sidecar was ready once.
func (s *sidecar) announce(ctx context.Context) error {
	announced := false
	for {
		ready, readyNext := s.ready.Get()
		app, appNext := s.app.Get()
		phase, phaseNext := s.phase.Get()
		announced = announced || ready && app.known
		if announced {
			s.setAnnouncement(s.config.announcement(app.healthy && !phase.failed, phase.draining))
		}
		select {
		case <-readyNext:
		case <-appNext:
		case <-phaseNext:
		case <-ctx.Done():
			return nil
		}
	}
}

// setAnnouncement does not send again what has been sent.
func (s *sidecar) setAnnouncement(next *periplusv1.AnnounceRequest) {
	if old := s.announcement.Latest(); old == nil || old.GetHealth() != next.GetHealth() {
		s.announcement.Set(next)
	}
}

func (c *Config) announcement(healthy, draining bool) *periplusv1.AnnounceRequest {
	request := &periplusv1.AnnounceRequest{
		Name: c.Name, Address: c.Bind.String(), Network: c.Network, Weight: c.Weight, Labels: c.Labels,
		Locality: &periplusv1.Locality{Region: c.Region, Zone: c.Zone, Subzone: c.Subzone},
		Health:   periplusv1.Health_HEALTH_UNHEALTHY,
	}
	switch {
	case draining:
		request.Health = periplusv1.Health_HEALTH_DRAINING
	case healthy:
		request.Health = periplusv1.Health_HEALTH_HEALTHY
	}
	byService := map[string]*periplusv1.AnnouncedService{}
	for _, in := range c.Inbound {
		service := byService[in.Service]
		if service == nil {
			service = &periplusv1.AnnouncedService{Name: in.Service}
			byService[in.Service] = service
			request.Services = append(request.Services, service)
		}
		service.Ports = append(service.Ports, &periplusv1.AnnouncedPort{
			Name: in.PortName, Port: uint32(in.ServicePort), Protocol: in.Protocol, EndpointPort: uint32(in.EndpointPort),
		})
	}
	return request
}
