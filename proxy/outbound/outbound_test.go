package outbound

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/periplus-mesh/periplus/proxy/config"
	"github.com/periplus-mesh/periplus/proxy/forward"
)

// A drain does not wait for a client that has connected and says nothing.
func TestSilentConnectionsDoNotHoldUpADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &config.Listener{Name: "l", Chains: []*config.FilterChain{{HTTP: &config.HTTP{IdleTimeout: time.Hour}}}}
		o := New(Config{Forwarder: forward.New(forward.Config{Clusters: forward.NewClusters(forward.ClustersConfig{})})})
		before, after := make(chan struct{}), make(chan struct{})
		serve := func(done chan struct{}) net.Conn {
			near, far := net.Pipe()
			go func() {
				o.ServeConn(t.Context(), near, l)
				close(done)
			}()
			synctest.Wait()
			return far
		}
		began := time.Now()
		first := serve(before)
		o.CloseIdle()
		_, _ = io.WriteString(serve(after), "x") // says something, and is the server's from then on
		<-before
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := first.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the connection stays: %v", err)
		}
		<-after
	})
}
