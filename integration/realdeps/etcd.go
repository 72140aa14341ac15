package realdeps

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"
)

// Etcd is one etcd server.
type Etcd struct {
	*Process
	Endpoint string // http://host:port
}

// StartEtcd starts etcd in a folder of its own; stopped and started again it has what it had.
func StartEtcd(t testing.TB) *Etcd {
	t.Helper()
	client, peer := "http://"+Address(), "http://"+Address()
	dir := shortDir(t)
	e := &Etcd{Endpoint: client}
	e.Process = Run(t, "etcd", Path(t, "etcd"), nil, "--name", "test", "--data-dir", filepath.Join(dir, "data"), "--unsafe-no-fsync",
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "test="+peer)
	e.AwaitReady()
	return e
}

// AwaitReady waits until it serves, after a Start.
func (e *Etcd) AwaitReady() {
	e.t.Helper()
	e.Await(30*time.Second, Answers(http.DefaultClient, e.Endpoint+"/health"))
}
