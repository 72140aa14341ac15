package kubernetes

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
)

//go:embed agent.yaml serviceexport-crd.yaml network-policy.yaml
var files embed.FS

// How pods get at the SPIFFE Workload API.
const (
	CSI      = "csi"      // the SPIFFE CSI driver, csi.spiffe.io
	HostPath = "hostpath" // the folder of the socket on the node
)

// Values are what differs from one installation to another.
type Values struct {
	// Cluster is its name in the mesh, for labels.
	Cluster string
	// Token is the join token.
	Token string
	// Image of periplus-agent; required.
	Image string
	// WorkloadAPI is CSI or HostPath; "" is CSI.
	WorkloadAPI string
	// SocketPath is where a pod finds the socket below its folder; "" is spire-agent.sock, as the CSI driver has it, and
	// for HostPath the path of the socket on the node; "" is /run/spire/agent-sockets/spire-agent.sock.
	SocketPath string
	// SPIREServer is host:port of the SPIRE server's API, by which the agent federates; "" = it does not.
	SPIREServer string
	// NetworkPolicy lets only proxies and probes in.
	NetworkPolicy bool
	// CRDs prints the definition of ServiceExport too.
	CRDs bool
}

// Namespace that the agent runs in, and the name of its account.
const (
	Namespace = "periplus-system"
	Account   = "periplus-agent"
)

func (v *Values) validate() error {
	if v.WorkloadAPI == "" {
		v.WorkloadAPI = CSI
	}
	if v.WorkloadAPI == CSI && v.SocketPath == "" {
		v.SocketPath = "spire-agent.sock"
	}
	if v.WorkloadAPI == HostPath && v.SocketPath == "" {
		v.SocketPath = "/run/spire/agent-sockets/spire-agent.sock"
	}
	switch {
	case v.Cluster == "" || v.Token == "":
		return errors.New("cluster and token are needed")
	case v.Image == "" || strings.ContainsAny(v.Image, " \t\r\n"):
		return fmt.Errorf("image %q is not one", v.Image)
	case v.WorkloadAPI != CSI && v.WorkloadAPI != HostPath:
		return fmt.Errorf("workload API %q: want %s or %s", v.WorkloadAPI, CSI, HostPath)
	case v.WorkloadAPI == HostPath && (!strings.HasPrefix(v.SocketPath, "/") || strings.HasSuffix(v.SocketPath, "/")):
		return fmt.Errorf("socket path %q: want the absolute path of the socket on the node", v.SocketPath)
	case strings.Contains(v.SocketPath, ".."):
		return fmt.Errorf("socket path %q: want it without '..'", v.SocketPath)
	}
	return nil
}

// folder and socket are the two parts of the socket's path.
func (v Values) folder() string { return v.SocketPath[:strings.LastIndex(v.SocketPath, "/")+1] }

func (v Values) socket() string {
	if v.WorkloadAPI == CSI {
		return v.SocketPath
	}
	return v.SocketPath[len(v.folder()):]
}

// Manifests are the documents for 'kubectl apply'.
func Manifests(v Values) ([]byte, error) {
	if err := v.validate(); err != nil {
		return nil, fmt.Errorf("kubernetes manifests: %w", err)
	}
	names := []string{"agent.yaml"}
	if v.NetworkPolicy {
		names = append(names, "network-policy.yaml")
	}
	if v.CRDs {
		names = append(names, "serviceexport-crd.yaml")
	}
	templates, err := template.New("").Funcs(template.FuncMap{
		"quote": quote, "folder": v.folder, "socket": v.socket,
	}).ParseFS(files, names...)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, name := range names {
		if err := templates.ExecuteTemplate(&out, name, v); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// quote is a value as a YAML string, which a JSON string is.
func quote(s string) (string, error) {
	data, err := json.Marshal(s)
	return string(data), err
}

// ServiceExport is the definition of ServiceExport alone.
func ServiceExport() ([]byte, error) { return files.ReadFile("serviceexport-crd.yaml") }
