package envoy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// field is two clusters in two networks and two trust domains of real SPIREs.
type field struct {
	*harness.Mesh
	east, west       *harness.Cluster
	agents           map[string]*realdeps.Process
	apps             map[string]string
	goGateway        *realdeps.Process
	goWares          *harness.Sidecar
	eastGo, westGo   *harness.Sidecar
	eastEnvoy, wares *proxy
	westEnvoy        *proxy
	files            map[string][]endpoint
}

// Wares is served by Envoy, goods by the mesh's own sidecar; visitors of both kinds are in both clusters.
func newMesh(t *testing.T) *field {
	w := &field{Mesh: harness.New(t, harness.Options{Prefix: "127.44"}), agents: map[string]*realdeps.Process{}, apps: map[string]string{}}
	w.east, w.west = w.Cluster(harness.ClusterOptions{Name: "east"}), w.Cluster(harness.ClusterOptions{Name: "west"})
	for _, name := range []string{"goods-1", "wares-1", "wares-2"} {
		w.apps[name] = w.App(t, name)
	}
	w.files = map[string][]endpoint{"goods": nil, "wares": {{"wares-1", w.east.Host(31), "a", "healthy", "wares"}}, "visitor": nil}
	for _, c := range []*harness.Cluster{w.east, w.west} {
		c.UseSPIRE(realdeps.StartSPIRE(t, realdeps.SPIREOptions{TrustDomain: c.TrustDomain}))
	}
	for _, identity := range []string{"gateway", "goods", "wares", "visitor"} { // all at once: SPIRE takes a second to know one
		for _, c := range []*harness.Cluster{w.east, w.west} {
			c.Binary(identity)
			c.BinaryOf(identity, realdeps.Path(t, "envoy"))
		}
	}
	w.agents["east"] = w.east.StartAgent("--services", services(t, w.east, w.files))
	w.agents["west"] = w.west.StartAgent("--services", services(t, w.west, west()), "--grace-period", "3s")
	w.east.AwaitAgent(w.agents["east"])
	w.west.AwaitAgent(w.agents["west"])
	w.goGateway = w.east.Gateway("east-go", "a")
	w.east.Sidecar(harness.SidecarOptions{Name: "goods-1", Service: "goods.shop", Zone: "a", App: w.apps["goods-1"]})
	w.eastGo = w.east.Sidecar(harness.SidecarOptions{Name: "visitor-1", Service: "visitor.shop", Zone: "a"})
	w.westGo = w.west.Sidecar(harness.SidecarOptions{Name: "visitor-1", Service: "visitor.shop", Zone: "a"})
	w.wares = w.start(t, w.east, spec{role: "sidecar", name: "wares-1", service: "wares.shop", zone: "a", host: 31, app: w.apps["wares-1"]})
	w.eastEnvoy = w.start(t, w.east, spec{role: "sidecar", name: "visitor-2", service: "visitor.shop", zone: "a", host: 32, sotw: true})
	w.westEnvoy = w.start(t, w.west, spec{role: "sidecar", name: "visitor-2", service: "visitor.shop", zone: "a", host: 32})
	return w
}

// west's services file; its endpoints are added by tests.
func west() map[string][]endpoint {
	return map[string][]endpoint{"goods": nil, "wares": nil, "visitor": nil}
}

func TestMesh(t *testing.T) {
	w := newMesh(t)
	t.Run("matrix", w.matrix)
	t.Run("variants", w.variants)
	w.noRejects(t)
	t.Run("split", w.split)
	t.Run("authorization", w.authorization)
	t.Run("figures", w.figures)
	t.Run("gateways", w.gateways)
	t.Run("changes", w.changes)
	t.Run("failover", w.failover)
	t.Run("impostor", w.impostor)
	t.Run("liars", w.liars)
	t.Run("agentIsGone", w.agentIsGone)
	w.noRejects(t)
}

// matrix asks every server through every client, and each side says whom it met.
func (w *field) matrix(t *testing.T) {
	clients := []struct {
		name, outbound string
		c              *harness.Cluster
	}{
		{"own sidecar, same network", w.eastGo.Outbound, w.east}, {"Envoy, same network", w.eastEnvoy.outbound, w.east},
		{"own sidecar, other network", w.westGo.Outbound, w.west}, {"Envoy, other network", w.westEnvoy.outbound, w.west},
	}
	for _, client := range clients {
		for _, service := range []string{"goods", "wares"} {
			took := harness.Eventually(t, 20*time.Second, client.name+" -> "+service, func() error {
				status, body, header, err := harness.Get(client.outbound, service+".shop", "/")
				if err != nil || status != 200 || body != service+"-1" {
					return fmt.Errorf("%d %s %w", status, strings.TrimSpace(body), err)
				}
				if got, want := header.Get(harness.HeaderCaller), client.c.ID("visitor").String(); got != want {
					return fmt.Errorf("the application was told of caller %q, want %q", got, want)
				}
				return nil
			})
			t.Logf("%-28s -> %s (%s)", client.name, service, took.Round(time.Millisecond))
		}
	}
}
