package envoy

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	pb "github.com/periplus-mesh/periplus/api/periplus/v1"
	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/announce"
	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/envoy"
	"github.com/periplus-mesh/periplus/internal/watch"
	"github.com/periplus-mesh/periplus/trust"
)

// envoyProbe is how often an Envoy is asked whether it is ready, and how long it may take to say so.
const envoyProbe = time.Second

func announcement() *cobra.Command {
	var f flags
	var p process.Logging
	var drain time.Duration
	var weight uint32
	command := &cobra.Command{
		Use: "announce", Short: "Announce an Envoy to its cluster's agent, as long as it is ready",
		Long: `Runs beside an Envoy, under the same identity, and announces it to the agent: healthy while Envoy's /ready says so. When
it is told to stop it announces that the endpoint drains, and ends after --drain-time; stop Envoy after that.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := p.Logger()
			if err != nil {
				return err
			}
			client, err := f.client()
			if err != nil {
				return cli.Exit(cli.ExitUsage, err)
			}
			source, err := trust.Watch(c.Context(), f.socket, log)
			if err != nil {
				return process.Interrupted(c.Context(), err)
			}
			defer source.Close()
			a := announcer{client: client, weight: weight, drain: drain}
			return a.run(c.Context(), announce.Config{
				Target: announce.Target{Address: f.agent, Authorize: a.authorize}, Source: source, Announcement: &a.announcement, Log: log,
			})
		},
	}
	f.add(command)
	p.Flags(command)
	command.Flags().DurationVar(&drain, "drain-time", 10*time.Second, "how long the endpoint is announced as draining before the end")
	command.Flags().Uint32Var(&weight, "weight", 1, "share of the requests relative to other endpoints of the locality")
	return command
}

// announcer announces one Envoy.
type announcer struct {
	client       *envoy.Client
	weight       uint32
	drain        time.Duration
	announcement watch.Value[*pb.AnnounceRequest]
}

func (a *announcer) authorize(peer spiffeid.ID) error {
	if want := mesh.AgentIdentity(a.client.TrustDomain); peer != want {
		return fmt.Errorf("peer is %q, want %q", peer, want)
	}
	return nil
}

// run announces until ctx ends and the drain is over.
func (a *announcer) run(ctx context.Context, c announce.Config) error {
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- announce.Run(rest, c) }()
	ticker := time.NewTicker(envoyProbe)
	defer ticker.Stop()
	for {
		a.announce(ctx)
		select {
		case <-ticker.C:
		case err := <-ended:
			return err
		case <-ctx.Done():
			a.set(pb.Health_HEALTH_DRAINING)
			time.Sleep(a.drain)
			stop()
			return <-ended
		}
	}
}

// announce says how Envoy is; nothing before it was ready once.
func (a *announcer) announce(ctx context.Context) {
	switch {
	case a.ready(ctx):
		a.set(pb.Health_HEALTH_HEALTHY)
	case a.announcement.Latest() != nil && ctx.Err() == nil:
		a.set(pb.Health_HEALTH_UNHEALTHY)
	}
}

func (a *announcer) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, envoyProbe)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.client.Admin.String()+"/ready", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (a *announcer) set(health pb.Health) {
	if old := a.announcement.Latest(); old == nil || old.GetHealth() != health {
		a.announcement.Set(a.request(health))
	}
}

func (a *announcer) request(health pb.Health) *pb.AnnounceRequest {
	c := a.client
	out := &pb.AnnounceRequest{
		Name: c.Name, Address: c.Workload.Bind, Network: string(c.Network), Health: health, Weight: a.weight, Labels: c.Workload.Labels,
		Locality: &pb.Locality{Region: c.Locality.Region, Zone: c.Locality.Zone, Subzone: c.Locality.Subzone},
	}
	if c.Role == translate.Gateway {
		out.Gateway = &pb.AnnouncedGateway{Port: uint32(c.Workload.GatewayPort)}
		return out
	}
	service := &pb.AnnouncedService{Name: c.Service}
	for _, in := range c.Workload.Inbound {
		service.Ports = append(service.Ports, &pb.AnnouncedPort{
			Name: in.PortName, Port: uint32(in.ServicePort), Protocol: string(in.Protocol), EndpointPort: uint32(in.EndpointPort),
		})
	}
	out.Services = []*pb.AnnouncedService{service}
	return out
}
