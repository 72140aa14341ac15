package envoy

import (
	"crypto"
	"crypto/x509"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/translate"
	"github.com/periplus-mesh/periplus/internal/translate/translatetest"
)

// randomWorlds is how many meshes are drawn.
const randomWorlds = 60

var only = flag.Int("seed", -1, "draw this random mesh alone")

func marshalKey(key crypto.PrivateKey) ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }

// Every golden file of the translation, and meshes drawn at random with every policy feature in them, are accepted
// whole by Envoy, by both variants of xDS, and by the mesh's own proxy.
func TestEverythingIsAccepted(t *testing.T) {
	b := newBench(t)
	files, err := filepath.Glob("../../internal/translate/catalog/testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, _, _ := strings.Cut(string(data), "\n--\n")
			var s translatetest.Script
			if err := s.Run(input); err != nil {
				t.Fatal(err)
			}
			if s.View.Role.Proxyless() {
				return // for gRPC's own client, not for a proxy
			}
			if err := b.accepted(s.View, s.Objects()); err != nil {
				t.Error(err)
			}
		})
	}
	worlds := rapid.Custom(func(t *rapid.T) mesh.Delta { return translatetest.Start(t) })
	views := rapid.Custom(func(t *rapid.T) translate.View { return translatetest.View(t, translatetest.AnyCluster(t)) })
	for seed := range randomWorlds {
		v := views.Example(seed)
		if v.Role.Proxyless() || *only >= 0 && *only != seed {
			continue
		}
		var objects []mesh.Object
		for _, object := range new(mesh.Store).Update(worlds.Example(seed)).All() {
			objects = append(objects, object)
		}
		if err := b.accepted(v, objects); err != nil {
			t.Errorf("random mesh %d: %v", seed, err)
		}
	}
}
