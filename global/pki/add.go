package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Add makes the replicas and operators that a folder of [Init] does not have yet, and says which those were. What is
// there stays as it is, so it can be repeated. The trust domain must be the root's; "" takes it as it is.
func Add(dir, trustDomain string, replicas, operators []string) (added []string, err error) {
	root, err := loadPair(filepath.Join(dir, "root"))
	if err != nil {
		return nil, fmt.Errorf("pki: the root is needed to add to %s: %w", dir, err)
	}
	if trustDomain != "" {
		domain, err := spiffeid.TrustDomainFromString(trustDomain)
		if err != nil {
			return nil, fmt.Errorf("pki: trust domain %q: %w", trustDomain, err)
		}
		if domain != root.domain() {
			return nil, fmt.Errorf("pki: the root in %s is of trust domain %q, not %q: choose another folder for another control plane", dir, root.domain().Name(), domain.Name())
		}
	}
	for _, id := range replicas {
		if there(dir, id, "ca.crt") {
			continue
		}
		if err := AddReplica(dir, id); err != nil {
			return added, err
		}
		added = append(added, id)
	}
	for _, name := range operators {
		if there(dir, operatorsDir, name+".crt") {
			continue
		}
		if err := AddOperator(dir, name); err != nil {
			return added, err
		}
		added = append(added, name)
	}
	return added, nil
}

// Exists tells whether dir has a root.
func Exists(dir string) bool { return there(dir, "root.crt") }

func there(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return !errors.Is(err, fs.ErrNotExist)
}
