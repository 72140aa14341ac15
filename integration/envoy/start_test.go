package envoy

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

// spec describes an Envoy of a cluster.
type spec struct {
	role, name, service, zone string
	host                      int    // last number of its address
	app                       string // of a sidecar that serves
	sotw                      bool
	agent                     string   // instead of the cluster's
	args                      []string // of 'periplus envoy bootstrap'
}

// proxy is an Envoy that runs.
type proxy struct {
	*realdeps.Envoy
	address, outbound string
	spec              spec
	flags             []string // that describe it to 'periplus envoy'
}

// description are the flags that 'bootstrap' and 'announce' share.
func (s spec) description(c *harness.Cluster, admin string) []string {
	agent := c.AgentAddress
	if s.agent != "" {
		agent = s.agent
	}
	args := []string{
		"--role", s.role, "--name", s.name, "--cluster", c.Name, "--network", c.Network, "--region", c.Region, "--zone", s.zone,
		"--bind", c.Host(s.host), "--workload-socket", c.WorkloadSocket, "--trust-domain", c.TrustDomain, "--agent", agent, "--admin-address", admin,
	}
	if s.role == "sidecar" {
		args = append(args, "--service", s.service)
	}
	if s.app != "" {
		args = append(args, "--inbound", "http:80:http:15006="+s.app)
	}
	return args
}

// identity is what the authority knows its program by.
func (s spec) identity() string {
	if s.role == "gateway" {
		return "gateway"
	}
	account, _, _ := strings.Cut(s.service, ".")
	return account
}

// start runs an Envoy from the bootstrap that the command prints.
func (w *field) start(t *testing.T, c *harness.Cluster, s spec) *proxy {
	t.Helper()
	admin := c.Host(s.host) + ":15014"
	p := &proxy{address: c.Host(s.host), outbound: c.Host(s.host) + ":15001", spec: s, flags: s.description(c, admin)}
	args := append([]string{"envoy", "bootstrap", "--controller", w.ControllerAddress(0), "--control-plane", harness.Plane}, p.flags...)
	if s.sotw {
		args = append(args, "--sotw")
	}
	bootstrap := w.Periplus(append(args, s.args...)...)
	program := c.BinaryOf(s.identity(), realdeps.Path(t, "envoy"))
	p.Envoy = realdeps.StartEnvoy(t, s.name, program, admin, []byte(bootstrap))
	return p
}

// announce runs 'periplus envoy announce' beside it.
func (w *field) announce(t *testing.T, c *harness.Cluster, p *proxy) *realdeps.Process {
	t.Helper()
	args := append([]string{"envoy", "announce", "--drain-time", "1s"}, p.flags...)
	return realdeps.Run(t, "announce-"+p.spec.name, c.Binary(p.spec.identity()), nil, args...)
}

// content checks that an Envoy took in all it was given and waits for nothing.
func (p *proxy) content(t *testing.T, listeners int) {
	t.Helper()
	harness.Eventually(t, 10*time.Second, p.spec.name+" has all of its configuration", func() error { return p.check(listeners) })
}

func (p *proxy) check(listeners int) error {
	stats := p.Stats(`(warming|update_rejected|update_failure|total_listeners_active|create_failure|rds.outbound.update_success|cds.update_success|init_fetch_timeout)`)
	want := map[string]int{"listener_manager.total_listeners_active": listeners}
	for name, value := range stats {
		if strings.HasSuffix(name, "update_success") {
			if value == 0 {
				return fmt.Errorf("%s is 0", name)
			}
		} else if !strings.HasSuffix(name, "update_failure") && value != want[name] {
			return fmt.Errorf("%s is %d, want %d", name, value, want[name])
		}
	}
	return nil
}

// rejects is how many responses the clients of an agent, or of a controller, have rejected.
func rejects(metrics string) (int, error) {
	response, err := http.Get(metrics)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	match := regexp.MustCompile(`(?m)^pilot_total_xds_rejects (\d+)$`).FindSubmatch(body)
	if match == nil {
		return 0, fmt.Errorf("%s: no pilot_total_xds_rejects", metrics)
	}
	return strconv.Atoi(string(match[1]))
}

// endpoint is one endpoint of the services file.
type endpoint struct{ name, address, zone, health, account string }

// services writes a cluster's services file: exported services, with the endpoints that announce themselves to nobody.
func services(t *testing.T, c *harness.Cluster, all map[string][]endpoint) string {
	t.Helper()
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		head := fmt.Sprintf("---\napiVersion: periplus.io/v1\nkind: %%s\nmetadata: {name: %s, namespace: shop}\nspec:\n", name)
		fmt.Fprintf(&text, head+"  exported: true\n  ports:\n  - {name: http, port: 80, protocol: http}\n", "Service")
		if len(all[name]) == 0 {
			continue
		}
		fmt.Fprintf(&text, head+"  endpoints:\n", "Endpoints")
		for _, e := range all[name] {
			fmt.Fprintf(&text, "  - {name: %s, address: %s, ports: {http: 15006}, locality: %s/%s, health: %s, identity: %s}\n",
				e.name, e.address, c.Region, e.zone, e.health, c.ID(e.account))
		}
	}
	path := c.File("services.yaml.new", text.String())
	final := strings.TrimSuffix(path, ".new")
	if err := os.Rename(path, final); err != nil {
		t.Fatal(err)
	}
	return final
}
