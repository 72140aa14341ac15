package realdeps_test

import (
	"strings"
	"testing"

	"github.com/periplus-mesh/periplus/integration/realdeps"
)

func TestKubernetesStopsAndStarts(t *testing.T) {
	etcd := realdeps.StartEtcd(t)
	k := realdeps.StartKubernetes(t, etcd, "one")
	k.Kubectl("", "create", "namespace", "kept")
	if version := k.Kubectl("", "version"); !strings.Contains(version, "Server Version: v1.") {
		t.Errorf("kubectl does not know the server: %s", version)
	}
	k.Stop()
	k.Start()
	k.AwaitReady()
	k.Kubectl("", "get", "namespace", "kept")
	t.Logf("API server %d MiB, etcd %d MiB", k.RSS()>>20, etcd.RSS()>>20)
}

func TestSPIRE(t *testing.T) {
	s := realdeps.StartSPIRE(t, realdeps.SPIREOptions{TrustDomain: "one.test"})
	if output := s.ServerCommand("agent", "list"); !strings.Contains(output, s.AgentID) {
		t.Errorf("agent %s is not listed: %s", s.AgentID, output)
	}
}

func TestEnvoy(t *testing.T) {
	admin := realdeps.Address()
	host, port, _ := strings.Cut(admin, ":")
	e := realdeps.StartEnvoy(t, "envoy", "", admin, []byte("admin: {address: {socket_address: {address: "+host+", port_value: "+port+"}}}\n"))
	if got := e.Stats("server.concurrency"); got["server.concurrency"] != 1 {
		t.Errorf("stats: %v", got)
	}
}

func TestPrometheus(t *testing.T) {
	p := realdeps.StartPrometheus(t, "global: {scrape_interval: 1s}\n")
	samples, err := p.Query("vector(42)")
	if err != nil || len(samples) != 1 || samples[0].Value != 42 {
		t.Errorf("%v, %v", samples, err)
	}
}
