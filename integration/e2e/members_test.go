package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// writes applies a policy over and over, and counts.
type writes struct {
	cancel  context.CancelFunc
	ended   chan struct{}
	done    int
	slowest time.Duration
	errs    []error
}

func startWrites(t *testing.T) *writes {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writes{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			err := running.tryApply(limited, fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: writes, namespace: shop, labels: {at: \"%d\"}}\nspec: {host: storefront}\n", i))
			cancel()
			if ctx.Err() != nil {
				return
			}
			if w.done++; err != nil {
				w.errs = append(w.errs, err)
			}
			w.slowest = max(w.slowest, time.Since(began))
			time.Sleep(50 * time.Millisecond)
		}
	}()
	t.Cleanup(func() {
		w.stop()
		run(t, "policy", "delete", "DestinationRule", "writes", "-n", "shop")
	})
	return w
}

func (w *writes) stop() {
	w.cancel()
	<-w.ended
}

// members tries until 'global members' says what is wanted of each; "" wants it not to be there.
func members(t *testing.T, want map[string]string) {
	t.Helper()
	within(t, 15*time.Second, fmt.Sprint("members are ", want), func() error {
		out, stderr, code := run(t, "global", "members")
		for id, has := range want {
			i := slices.IndexFunc(strings.Split(out, "\n"), func(line string) bool { return strings.HasPrefix(line, id+" ") })
			if code != 0 || (i >= 0) != (has != "") || i >= 0 && !strings.Contains(strings.Split(out, "\n")[i], has) {
				return fmt.Errorf("%s%s", out, stderr)
			}
		}
		return nil
	})
}

// A fourth replica joins and leaves; a member that lost its disk joins again under its old name. Writes go on.
func TestReplicaJoinsLeavesAndIsReplaced(t *testing.T) {
	running.withoutRetries(t, "catalog")
	l, w := startLoad(t, running.outbound(visitorA), "catalog.shop"), startWrites(t)
	keys := filepath.Join(running.plan.Dir, "pki")
	for range 2 { // the second time there is nothing to do
		if out, stderr, code := run(t, "global", "init", "--dir", keys, "--trust-domain", "periplus.global", "--replica", "controller-new"); code != 0 {
			t.Fatal(out, stderr)
		}
	}
	if out, stderr, code := run(t, "global", "init", "--dir", keys, "--trust-domain", "other.global", "--replica", "controller-other"); code == 0 || !strings.Contains(stderr, "periplus.global") {
		t.Errorf("keys of another control plane in the same folder: %d %s%s", code, out, stderr)
	}
	own, seed := prefix+".4.1", running.controllers()[1]
	_, out := spawn(t, filepath.Join(t.TempDir(), "controller"), "global", "run", "--id", "controller-new", "--region", "lab", "--data-dir", t.TempDir(),
		"--pki", filepath.Join(keys, "controller-new"), "--mesh-address", own+":15012", "--raft-address", own+":15013", "--admin-address", own+":15014",
		"--dashboard-address", own+":8080", "--join", seed)
	within(t, 15*time.Second, "the new replica is ready", func() error { return get("http://" + own + ":8080/ready") })
	members(t, map[string]string{"controller-new": "true", "controller-eu-west": "true", "controller-us-east": "true", "controller-ap-south": "true"})
	if out, stderr, code := run(t, "global", "join", "controller-new", own+":15013", own+":15012"); code != 0 {
		t.Errorf("joining again: %s%s", out, stderr)
	}
	if out, stderr, code := run(t, "global", "leave", "controller-new"); code != 0 {
		t.Errorf("%s%s", out, stderr)
	}
	members(t, map[string]string{"controller-new": "", "controller-eu-west": "true"})
	within(t, 10*time.Second, "who was removed ends", func() error {
		if !strings.Contains(out.String(), "removed from the mesh") || get("http://"+own+":8080/ready") == nil {
			return fmt.Errorf("it runs: %s", out)
		}
		return nil
	})
	replaceMember(t, seed)
	time.Sleep(time.Second)
	w.stop()
	t.Logf("%d writes, the slowest took %v", w.done, w.slowest)
	if len(w.errs) > 0 || w.slowest > 3*time.Second || w.done < 20 {
		t.Errorf("%d of %d writes failed, the slowest took %v: %v", len(w.errs), w.done, w.slowest, w.errs)
	}
	noneFailed(t, l.stop())
}

// replaceMember kills a member, deletes its disk and lets it join again.
func replaceMember(t *testing.T, seed string) {
	t.Helper()
	const id = "controller-ap-south"
	process := running.process(id)
	running.act(t, "kill", id)
	data := filepath.Join(running.plan.Dir, "global", "ap-south")
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	args := append(slices.DeleteFunc(slices.Clone(process.Args), func(arg string) bool { return arg == "--bootstrap" }), "--join", seed)
	t.Run("with an empty disk", func(t *testing.T) {
		spawn(t, running.plan.Binary(process), args...)
		within(t, 15*time.Second, "it is ready again", func() error { return get(process.Ready) })
		members(t, map[string]string{id: "true"})
		if _, err := os.Stat(filepath.Join(data, "raft")); err != nil {
			t.Error(err)
		}
	})
	running.restore(t, id) // with the disk that it has now
	members(t, map[string]string{id: "true"})
}
