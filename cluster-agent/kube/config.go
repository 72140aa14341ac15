package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Config of the source.
type Config struct {
	// Kubeconfig is the file that says how to reach the API server; "" = the pod's own service account.
	Kubeconfig string
	// Context of the kubeconfig; "" = its current one.
	Context string
	// Version of the program, for the API server's audit log.
	Version string
	// Spacing is the shortest time between two steps of the mesh state while changes keep coming; the first goes out
	// at once. 0: 20 ms.
	Spacing time.Duration
	// Log; nil discards.
	Log *slog.Logger
	// Metrics are needed.
	Metrics prometheus.Registerer
}

func (c *Config) validate() error {
	if c.Metrics == nil {
		return errors.New("kubernetes: metrics are needed")
	}
	if c.Context != "" && c.Kubeconfig == "" {
		return errors.New("kubernetes: a context needs a kubeconfig")
	}
	if c.Spacing <= 0 {
		c.Spacing = 20 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// connection is how to reach the API server.
func (c *Config) connection() (*rest.Config, error) {
	out, err := rest.InClusterConfig()
	if c.Kubeconfig != "" {
		out, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
			&clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}, &clientcmd.ConfigOverrides{CurrentContext: c.Context},
		).ClientConfig()
	}
	if errors.Is(err, rest.ErrNotInCluster) {
		err = errors.New("this is not a pod: say where the API server is with --kubeconfig, or turn the source off with --kubernetes=false")
	}
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	out.UserAgent = "periplus-agent/" + c.Version
	out.QPS, out.Burst = 20, 40
	return out, nil
}
