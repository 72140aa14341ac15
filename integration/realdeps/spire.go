package realdeps

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// SPIREOptions are what tests vary.
type SPIREOptions struct {
	TrustDomain    string
	CATTL, SVIDTTL time.Duration // 0: 24 h and 1 h
	BundleEndpoint bool          // serve one, of profile https_spiffe
}

// SPIRE is one SPIRE server with one agent beside it, both with disks of their own.
type SPIRE struct {
	TrustDomain string
	// Sockets as unix:///path.
	ServerSocket, WorkloadSocket string
	// ServerAddress is host:port of the server's API over TCP.
	ServerAddress string
	// BundleEndpoint is its URL; "" without one.
	BundleEndpoint string
	// AgentID is the parent of the entries of workloads beside the agent.
	AgentID       string
	Server, Agent *Process
	program       string
}

const spireServer = `server {
  bind_address = "%[1]s"
  bind_port = "%[2]s"
  socket_path = "%[3]s/server.sock"
  trust_domain = "%[4]s"
  data_dir = "%[3]s/server"
  log_level = "INFO"
  ca_ttl = "%[5]s"
  default_x509_svid_ttl = "%[6]s"
  experimental { cache_reload_interval = "1s" }
%[7]s}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "%[3]s/server.sqlite3" } }
  KeyManager "disk" { plugin_data { keys_path = "%[3]s/server-keys.json" } }
  NodeAttestor "join_token" { plugin_data {} }
}
`

const spireEndpoint = `  federation {
    bundle_endpoint {
      address = "%s"
      port = %s
      profile "https_spiffe" {}
    }
  }
`

const spireAgent = `agent {
  server_address = "%[1]s"
  server_port = "%[2]s"
  socket_path = "%[3]s/workload.sock"
  trust_domain = "%[4]s"
  data_dir = "%[3]s/agent"
  log_level = "INFO"
  insecure_bootstrap = true
  join_token = "%[5]s"
  experimental { sync_interval = "1s" }
}
plugins {
  KeyManager "disk" { plugin_data { directory = "%[3]s/agent" } }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data { discover_workload_path = true } }
}
`

// StartSPIRE starts a server and an agent of a new trust domain. Entries reach the agent within about a second.
func StartSPIRE(t testing.TB, o SPIREOptions) *SPIRE {
	t.Helper()
	server, agent := Path(t, "spire-server"), Path(t, "spire-agent")
	if o.CATTL == 0 {
		o.CATTL = 24 * time.Hour
	}
	if o.SVIDTTL == 0 {
		o.SVIDTTL = time.Hour
	}
	dir, address := shortDir(t), Address()
	host, port, _ := strings.Cut(address, ":")
	s := &SPIRE{
		TrustDomain: o.TrustDomain, ServerSocket: "unix://" + dir + "/server.sock", WorkloadSocket: "unix://" + dir + "/workload.sock",
		ServerAddress: address, program: server,
	}
	federation := ""
	if o.BundleEndpoint {
		endpoint := Address()
		endpointHost, endpointPort, _ := strings.Cut(endpoint, ":")
		s.BundleEndpoint = "https://" + endpoint
		federation = fmt.Sprintf(spireEndpoint, endpointHost, endpointPort)
	}
	config := write(t, filepath.Join(dir, "server.conf"), fmt.Sprintf(spireServer, host, port, dir, o.TrustDomain, o.CATTL, o.SVIDTTL, federation))
	s.Server = Run(t, "spire-server-"+o.TrustDomain, server, nil, "run", "-config", config)
	s.AwaitServer()
	output, err := s.TryServerCommand("token", "generate")
	if err != nil {
		t.Fatalf("token: %v\n%s", err, output)
	}
	first, _, _ := strings.Cut(output, "\n")
	token := strings.TrimSpace(strings.TrimPrefix(first, "Token:"))
	s.AgentID = "spiffe://" + o.TrustDomain + "/spire/agent/join_token/" + token
	config = write(t, filepath.Join(dir, "agent.conf"), fmt.Sprintf(spireAgent, host, port, dir, o.TrustDomain, token))
	s.Agent = Run(t, "spire-agent-"+o.TrustDomain, agent, nil, "run", "-config", config)
	s.Agent.Await(30*time.Second, func() error {
		output, err := exec.Command(agent, "healthcheck", "-socketPath", dir+"/workload.sock").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, bytes.TrimSpace(output))
		}
		return nil
	})
	return s
}

// AwaitServer waits until the server is healthy, after a Start.
func (s *SPIRE) AwaitServer() {
	s.Server.t.Helper()
	s.Server.Await(30*time.Second, func() error {
		output, err := s.TryServerCommand("healthcheck")
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
}

// TryServerCommand runs 'spire-server ARGS... -socketPath ...'; output is all that it wrote.
func (s *SPIRE) TryServerCommand(args ...string) (output string, err error) {
	args = append(args, "-socketPath", strings.TrimPrefix(s.ServerSocket, "unix://"))
	data, err := exec.Command(s.program, args...).CombinedOutput()
	return string(data), err
}

// ServerCommand is TryServerCommand for what must work.
func (s *SPIRE) ServerCommand(args ...string) string {
	s.Server.t.Helper()
	output, err := s.TryServerCommand(args...)
	if err != nil {
		s.Server.t.Fatalf("spire-server %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}
