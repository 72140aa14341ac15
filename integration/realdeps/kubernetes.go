package realdeps

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Kubernetes is one API server over etcd, without controllers: ServiceAccounts, EndpointSlices and the like are what
// the test applies. RBAC is enforced.
type Kubernetes struct {
	*Process
	URL        string
	CAFile     string
	Kubeconfig string // path; of a cluster administrator
	kubectl    string
	client     *http.Client
}

const administrator = "administrator-of-the-test"

const kubeconfig = `apiVersion: v1
kind: Config
current-context: %[1]s
contexts:
- {name: %[1]s, context: {cluster: %[1]s, user: user}}
clusters:
- {name: %[1]s, cluster: {server: "%[2]s", certificate-authority: %[3]s}}
users:
- {name: user, user: {token: %[4]s}}
`

// StartKubernetes starts an API server whose objects are below name in e: one etcd serves several.
func StartKubernetes(t testing.TB, e *Etcd, name string) *Kubernetes {
	t.Helper()
	server, kubectl := Path(t, "kube-apiserver"), Path(t, "kubectl")
	dir, address := shortDir(t), Address()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	k := &Kubernetes{URL: "https://" + address, kubectl: kubectl}
	var key string
	k.CAFile, key = certificate(t, dir, host)
	k.Kubeconfig = k.KubeconfigFor(dir, name, administrator)
	k.client = k.httpClient(t)
	k.Process = Run(t, "kube-apiserver-"+name, server, nil,
		"--etcd-servers", e.Endpoint, "--etcd-prefix", "/"+name, "--bind-address", host, "--advertise-address", "192.0.2.1", "--secure-port", port,
		"--tls-cert-file", k.CAFile, "--tls-private-key-file", key, "--cert-dir", dir,
		"--service-account-issuer", "https://"+name, "--service-account-key-file", key, "--service-account-signing-key-file", key,
		"--service-cluster-ip-range", "10.0.0.0/16", "--token-auth-file", write(t, filepath.Join(dir, "tokens"), administrator+",admin,1,system:masters\n"),
		"--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none")
	k.AwaitReady()
	return k
}

// KubeconfigFor writes a kubeconfig for a bearer token into dir and returns its path.
func (k *Kubernetes) KubeconfigFor(dir, name, token string) string {
	path := filepath.Join(dir, "kubeconfig-"+name)
	if err := os.WriteFile(path, fmt.Appendf(nil, kubeconfig, name, k.URL, k.CAFile, token), 0o600); err != nil {
		panic(err) // the folder is the test's own
	}
	return path
}

func (k *Kubernetes) httpClient(t testing.TB) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	data, err := os.ReadFile(k.CAFile)
	if err != nil || !roots.AppendCertsFromPEM(data) {
		t.Fatalf("%s: %v", k.CAFile, err)
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
}

// AwaitReady waits until it serves, after a Start.
func (k *Kubernetes) AwaitReady() {
	k.t.Helper()
	k.Await(90*time.Second, Answers(k.client, k.URL+"/readyz"))
	// The namespace is made after the server is ready.
	k.Await(30*time.Second, func() error {
		output, err := k.TryKubectl("", "get", "namespace", "default")
		if err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
}

// TryKubectl runs kubectl as the administrator with stdin; output is all that it wrote.
func (k *Kubernetes) TryKubectl(stdin string, args ...string) (output string, err error) {
	command := exec.Command(k.kubectl, append([]string{"--kubeconfig", k.Kubeconfig, "--cache-dir", filepath.Dir(k.Kubeconfig)}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	data, err := command.CombinedOutput()
	return string(data), err
}

// Kubectl is TryKubectl for what must work.
func (k *Kubernetes) Kubectl(stdin string, args ...string) string {
	k.t.Helper()
	output, err := k.TryKubectl(stdin, args...)
	if err != nil {
		k.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, output)
	}
	return output
}
