package builder

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/periplus-mesh/periplus/proxy/config"
)

func FuzzDecode(f *testing.F) {
	for i, m := range []proto.Message{edsCluster(f, "x"), assignment("x", "10.0.0.1"), gatewayListener(f), httpListener(f, "x", "r"), routes("x", "c")} {
		f.Add(uint8(min(i, 3)), body(f, m))
	}
	b := New()
	f.Fuzz(func(t *testing.T, typ uint8, data []byte) {
		before := b.Latest()
		kind := types[int(typ)%len(types)]
		c, err := b.Apply(config.Update{Type: kind, Upserts: []config.Resource{{Name: "x", Body: data}}})
		if err != nil && len(c.Clusters) != len(before.Clusters) {
			t.Fatal("a refused resource changed the config")
		}
	})
}
