package authority

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Config is what [Run] needs.
type Config struct {
	// TrustDomain is the one domain that is issued. Required; a data folder keeps it for ever.
	TrustDomain spiffeid.TrustDomain
	// DataDir holds the root keys, entries and foreign bundles; made with mode 0700. Required.
	DataDir string
	// ServerSocket is where the SPIRE server API is served, a path or unix:///path, at most 107 bytes. Whoever
	// can open it is an administrator, so only the own user can. Required.
	ServerSocket string
	// WorkloadSocket is where the Workload API is served, likewise; every local user may connect. Required.
	WorkloadSocket string
	// CATTL is the life of a root; 0 = 7 days. The next root is published at half of it and signs after five
	// sixths, so a cluster may be cut off for a third of it and still know every root in use.
	CATTL time.Duration
	// SVIDTTL is the life of an SVID whose entry names none; 0 = 1 hour. At most a sixth of CATTL.
	SVIDTTL time.Duration
	// Log is required.
	Log *slog.Logger
	// Metrics may be nil.
	Metrics *prometheus.Registry
}

func (c *Config) validate() error {
	c.ServerSocket = strings.TrimPrefix(c.ServerSocket, "unix://")
	c.WorkloadSocket = strings.TrimPrefix(c.WorkloadSocket, "unix://")
	if c.CATTL == 0 {
		c.CATTL = 7 * 24 * time.Hour
	}
	if c.SVIDTTL == 0 {
		c.SVIDTTL = min(time.Hour, c.CATTL/6)
	}
	switch {
	case c.TrustDomain.IsZero():
		return errors.New("trust domain is missing")
	case c.DataDir == "" || c.ServerSocket == "" || c.WorkloadSocket == "":
		return errors.New("data folder, server socket and workload socket are all required")
	case c.ServerSocket == c.WorkloadSocket:
		return errors.New("server and workload socket must differ: the first is for administrators only")
	case c.CATTL < 0 || c.SVIDTTL < 0 || c.SVIDTTL > c.CATTL/6:
		return fmt.Errorf("SVID life %v is more than a sixth of the root's, %v: choose a longer root life", c.SVIDTTL, c.CATTL)
	case c.Log == nil:
		return errors.New("logger is missing")
	}
	return nil
}
