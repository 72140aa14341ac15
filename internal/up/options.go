package up

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Options of one mesh on one machine.
type Options struct {
	// Dir keeps everything: state, logs, sockets. "": periplus/up under the user's state folder.
	Dir string
	// Clusters, 1..9; 0 means 3. Each has a region of its own. Those that an earlier run had and this one has not stay
	// registered.
	Clusters int
	// Prefix is the /16 of loopback addresses that the mesh uses. "": 127.20
	Prefix string
	// Rate is the requests per second that the visitors of each zone send, up to 10 000; 0 means 10.
	Rate float64
	// Executable is the periplus binary that every process runs. "": this one.
	Executable string
	// Context is the name under which the mesh is entered among the user's contexts. "": up
	Context string
	// SVIDTTL is how long workload certificates live, as a duration, 10s to 120h; "" means 1h.
	SVIDTTL string
}

// Bounds of the options. An authority's SVIDs live at most a sixth of its roots, which live 30 days.
const (
	maxRate    = 10_000
	minSVIDTTL = 10 * time.Second
	maxSVIDTTL = 5 * 24 * time.Hour
)

// maxDirBytes leaves room for the longest socket name below Dir (unix(7): 108 bytes with the final NUL).
const maxDirBytes = 107 - len("/authority/ap-southeast/workload.sock")

var regions = []string{
	"eu-west", "us-east", "ap-south", "us-west", "eu-north", "sa-east", "af-south", "me-central", "ap-east",
}

func (o *Options) validate() error {
	if o.Clusters == 0 {
		o.Clusters = 3
	}
	if o.Prefix == "" {
		o.Prefix = "127.20"
	}
	if o.Rate == 0 {
		o.Rate = 10
	}
	if o.Context == "" {
		o.Context = "up"
	}
	if o.SVIDTTL == "" {
		o.SVIDTTL = "1h"
	}
	if !(o.Rate > 0 && o.Rate <= maxRate) { // NaN neither
		return fmt.Errorf("--rate %v: want more than 0, and at most %d requests per second", o.Rate, maxRate)
	}
	if ttl, err := time.ParseDuration(o.SVIDTTL); err != nil || ttl < minSVIDTTL || ttl > maxSVIDTTL {
		return fmt.Errorf("--svid-ttl %s: want a duration from %v to %v, such as 1h", o.SVIDTTL, minSVIDTTL, maxSVIDTTL)
	}
	if o.Clusters < 1 || o.Clusters > len(regions) {
		return fmt.Errorf("--clusters %d: want 1 to %d", o.Clusters, len(regions))
	}
	if address, err := netip.ParseAddr(o.Prefix + ".0.1"); err != nil || !address.IsLoopback() {
		return fmt.Errorf("--prefix %q: want the first two parts of a loopback address, such as 127.20", o.Prefix)
	}
	return o.validatePaths()
}

func (o *Options) validatePaths() (err error) {
	if o.Dir == "" {
		if o.Dir, err = DefaultDir(); err != nil {
			return err
		}
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if len(o.Dir) > maxDirBytes {
		return fmt.Errorf("--dir %s: %d bytes, at most %d because sockets live below it: choose a shorter path", o.Dir, len(o.Dir), maxDirBytes)
	}
	if strings.ContainsAny(o.Dir, ",=\n") {
		return fmt.Errorf("--dir %s: must not contain ',', '=' or a line break", o.Dir)
	}
	if o.Executable == "" {
		o.Executable, err = os.Executable()
	}
	return err
}

// DefaultDir is periplus/up under $XDG_STATE_HOME, else ~/.local/state.
func DefaultDir() (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); state != "" {
		return filepath.Join(state, "periplus", "up"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder: %w: name a folder with --dir", err)
	}
	return filepath.Join(home, ".local", "state", "periplus", "up"), nil
}
