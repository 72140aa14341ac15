package trust

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/periplus-mesh/periplus/internal/durable"
)

// Files of [WriteFiles], for programs that read PEM instead of the Workload API. The first three are named as
// spiffe-helper names them.
const (
	FileSVID   = "svid.pem"     // the chain, leaf first
	FileKey    = "svid_key.pem" // PKCS #8
	FileBundle = "bundle.pem"   // the roots of the own trust domain
	// FileControl has the roots of the own trust domain and of the control plane's: of whoever may serve xDS.
	FileControl = "control.pem"
	// FileBundleMap has the roots of every trust domain, by domain (SPIFFE bundle map): its reader can tell that a
	// root signs for its own domain alone.
	FileBundleMap = "bundles.json"
)

// DomainFile is beside them for each trust domain: its roots alone.
func DomainFile(domain spiffeid.TrustDomain) string {
	return domainPrefix + domain.Name() + domainSuffix
}

const (
	domainPrefix = "bundle."
	domainSuffix = ".pem"
)

// WriteFiles writes material into dir, each file at once and for the owner's eyes only. The key precedes the
// certificate: a reader in between sees a pair that does not match, and keeps the one it has.
// plane is the control plane's trust domain.
func WriteFiles(dir string, m *Material, plane spiffeid.TrustDomain) error {
	key, err := x509.MarshalPKCS8PrivateKey(m.Certificate.PrivateKey)
	if err != nil {
		return fmt.Errorf("key of %q: %w", m.ID, err)
	}
	own := m.Bundles[m.ID.TrustDomain()]
	files := []file{
		{FileBundle, encodeRoots(own)}, {FileControl, encodeRoots(slices.Concat(own, m.Bundles[plane]))}, {FileKey, encodePEM("PRIVATE KEY", key)},
		{FileSVID, encodePEM("CERTIFICATE", m.Certificate.Certificate...)},
	}
	bundles := make(map[string]json.RawMessage, len(m.Bundles))
	for domain, roots := range m.Bundles {
		files = append(files, file{DomainFile(domain), encodeRoots(roots)})
		if bundles[domain.Name()], err = NewBundle(domain, 0, roots, nil).Marshal(); err != nil {
			return err
		}
	}
	byDomain, err := json.MarshalIndent(map[string]any{"trust_domains": bundles}, "", "  ")
	if err != nil {
		return fmt.Errorf("bundle map: %w", err)
	}
	if err := replaceFiles(dir, append(files, file{FileBundleMap, byDomain})); err != nil {
		return err
	}
	return removeOthers(dir, m)
}

type file struct {
	name    string
	content []byte
}

// removeOthers takes away the roots of domains that are trusted no more.
func removeOthers(dir string, m *Material) error {
	names, err := filepath.Glob(filepath.Join(dir, domainPrefix+"*"+domainSuffix))
	if err != nil {
		return err
	}
	keep := map[string]bool{FileBundle: true}
	for domain := range m.Bundles {
		keep[DomainFile(domain)] = true
	}
	for _, name := range names {
		if !keep[filepath.Base(name)] {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

func encodeRoots(roots []*x509.Certificate) []byte {
	var blocks [][]byte
	for _, root := range roots {
		blocks = append(blocks, root.Raw)
	}
	return encodePEM("CERTIFICATE", blocks...)
}

// KeepFiles writes the source's material into dir whenever it changes, until ctx is done or writing fails. written,
// if not nil, is called after each time.
func KeepFiles(ctx context.Context, dir string, source Source, plane spiffeid.TrustDomain, written func(*Material)) error {
	for {
		material, changed := source.Get()
		if err := WriteFiles(dir, material, plane); err != nil {
			return err
		}
		if written != nil {
			written(material)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func encodePEM(kind string, blocks ...[]byte) []byte {
	var out bytes.Buffer
	for _, der := range blocks {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return out.Bytes()
}

// replaceFiles leaves of each file the old content or the new, whatever happens. They change one right after the other
// when all are on disk, so that a reader hardly ever sees a certificate without its key.
func replaceFiles(dir string, files []file) error {
	made := make([]string, 0, len(files))
	defer func() {
		for _, name := range made {
			os.Remove(name) // of those that were not renamed
		}
	}()
	for _, f := range files {
		name, err := durable.Stage(filepath.Join(dir, f.name), f.content)
		if err != nil {
			return err
		}
		made = append(made, name)
	}
	for i, f := range files {
		if err := os.Rename(made[i], filepath.Join(dir, f.name)); err != nil {
			return err
		}
	}
	return durable.SyncDir(dir)
}
