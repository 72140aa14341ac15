package envoy

import (
	"bytes"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func envoyBootstrap(args ...string) (string, error) {
	command := process.Usage(Command())
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	base := []string{"bootstrap", "--name", "catalog-1", "--cluster", "east", "--network", "east", "--agent", "agent.mesh:15012",
		"--trust-domain", "east.test", "--bind", "10.0.0.1", "-o", "json"}
	command.SetArgs(append(base, args...))
	err := command.Execute()
	return out.String(), err
}

func TestEnvoyBootstrap(t *testing.T) {
	text, err := envoyBootstrap("--service", "catalog.shop", "--inbound", "http:80:http:15006=127.0.0.1:9000", "--label", "version=v1", "--region", "eu", "--zone", "a",
		"--controller", "10.9.0.1:15012", "--controller", "[fd00::1]:15012", "--control-plane", "periplus.global", "--sotw")
	if err != nil {
		t.Fatal(err)
	}
	var bootstrap bootstrapv3.Bootstrap
	if err := protojson.Unmarshal([]byte(text), &bootstrap); err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.ValidateAll(); err != nil {
		t.Error(err)
	}
	if got, want := bootstrap.GetNode().GetId(), "sidecar~east~catalog-1"; got != want {
		t.Errorf("node is %q, want %q", got, want)
	}
	for _, want := range []string{"spiffe://east.test/periplus/agent", "spiffe://periplus.global/controller/", "fd00::1", "STRICT_DNS", `"default"`, `"ALL"`, "ENDPOINT_PORT"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in it", want)
		}
	}
	if strings.Contains(text, "DELTA_GRPC") {
		t.Error("--sotw gives delta")
	}
}

// What the agent would refuse later is refused at once, as a mistake in the flags.
func TestEnvoyBootstrapRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"--service":         {},
		"--role":            {"--role", "router"},
		"--control-plane":   {"--role", "gateway", "--controller", "10.9.0.1:1"},
		"--agent":           {"--role", "gateway", "--agent", "nowhere"},
		"--trust-domain":    {"--role", "gateway", "--trust-domain", "East!"},
		"--workload-socket": {"--role", "gateway", "--workload-socket", "/run/x"},
		"--admin-address":   {"--role", "gateway", "--admin-address", "localhost"},
		"BIND":              {"--role", "gateway", "--bind", "here"},
		"INBOUND 0":         {"--service", "catalog.shop", "--inbound", "http:80:gopher:15006=127.0.0.1:9000"},
		"if any flags":      {"--role", "gateway", "--delta", "--sotw"},
	} {
		_, err := envoyBootstrap(args...)
		if err == nil || !strings.Contains(err.Error(), want) || cli.Code(err) != cli.ExitUsage {
			t.Errorf("%v: error %v (exit code %d), want one about %s", args, err, cli.Code(err), want)
		}
	}
}
