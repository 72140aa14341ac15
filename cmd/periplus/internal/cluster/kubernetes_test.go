package cluster

import (
	"bytes"
	"strings"
	"testing"

	"github.com/periplus-mesh/periplus/cmd/internal/process"
	"github.com/periplus-mesh/periplus/internal/cli"
)

func TestRegisterKubernetes(t *testing.T) {
	base := []string{"register", "x", "--region", "r", "--network", "n=10.0.0.0/8", "--trust-domain", "x.test"}
	for _, c := range []struct {
		args  string
		code  int
		wants string // in the output, or in the error
	}{
		{"--kubernetes --image a:1 -o yaml --dry-run", cli.ExitOK, "kind: Deployment"},
		{"--kubernetes --image a:1 -o yaml --dry-run --crds", cli.ExitOK, "name: serviceexports.multicluster.x-k8s.io"},
		{"--kubernetes --image a:1", cli.ExitUsage, "-o yaml | kubectl apply -f -"},
		{"--kubernetes -o yaml", cli.ExitUsage, "image"},
		{"--kubernetes --image a:1 -o yaml --token-file f", cli.ExitUsage, "--token-file"},
		{"--kubernetes --image a:1 -o yaml --workload-api tcp", cli.ExitUsage, "csi or hostpath"},
		{"--image a:1", cli.ExitUsage, "--image is for --kubernetes"},
	} {
		var out bytes.Buffer
		command := process.Usage(Command())
		command.SetOut(&out)
		command.SetArgs(append(base, strings.Fields(c.args)...))
		err := command.Execute()
		text := out.String()
		if err != nil {
			text = err.Error()
		}
		if cli.Code(err) != c.code || !strings.Contains(text, c.wants) {
			t.Errorf("%s: exit code %d, want %d; %q, want %q in it", c.args, cli.Code(err), c.code, text, c.wants)
		}
	}
}
