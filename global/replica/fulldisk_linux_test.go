package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/mesh"
	"github.com/periplus-mesh/periplus/internal/meshpb"
)

// ownMounts runs the test again in a process that may mount, and returns false; there it returns true.
func ownMounts(t *testing.T) bool {
	const inside = "PERIPLUS_TEST_OWN_MOUNTS"
	if os.Getenv(inside) != "" {
		return true
	}
	var out []byte
	var err error
	for _, flags := range []uintptr{syscall.CLONE_NEWNS, syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER} { // as root, or as anybody
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=2m")
		command.Env = append(os.Environ(), inside+"=1")
		command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&syscall.CLONE_NEWUSER != 0 {
			command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
		out, err = command.CombinedOutput()
		if !errors.Is(err, syscall.EPERM) {
			break
		}
	}
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) { // ENOSPC: no more namespaces
		t.Skip("mount and user namespaces are not allowed:", err)
	}
	if t.Log(string(out)); err != nil {
		t.Error(err)
	}
	return false
}

// volume is a file system of its own.
type volume struct {
	t    *testing.T
	path string
}

func newVolume(t *testing.T, path string, size int) volume {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	// Nothing that is mounted here is seen outside.
	err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(path, syscall.MNT_DETACH) })
	return volume{t, path}
}

func (v volume) resize(size int) {
	v.t.Helper()
	if err := syscall.Mount("tmpfs", v.path, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		v.t.Fatal(err)
	}
}

// A full disk of one replica stops nobody. Full disks of all refuse changes, with an error that says so, for as long as it
// lasts; what is there can be read, and no replica ends. With room again all goes on, and nothing that was acknowledged is lost.
func TestFullDisks(t *testing.T) {
	if !ownMounts(t) {
		return
	}
	p, disks := newPlane(t, "a", "b", "c"), map[string]volume{}
	const room = 10 << 20 // for two segments of the log, and not for a third
	for id := range p.members {
		disks[id] = newVolume(t, filepath.Join(t.TempDir(), id), room)
		p.start(id, func(c *Config) { c.DataDir = disks[id].path })
	}
	written, asked, follower := 0, p.leader(), p.follower()
	write := func(limit time.Duration) error {
		policy := &mesh.Policy{
			Kind: mesh.KindDestinationRule, Namespace: "shop", Name: fmt.Sprint("p", written), Source: make([]byte, 100<<10),
			Spec: &mesh.DestinationRule{Host: mesh.ServiceName{Namespace: "shop", Name: "catalog"}},
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := p.nodes[asked].Propose(ctx, put(meshpb.Encode(policy)))
		if err == nil {
			written++
		}
		return err
	}
	disks[follower].resize(5 << 20) // its second segment finds no room
	applied := p.nodes[follower].fsm.applied.Latest
	var err error
	behind := 0 // changes since the follower has taken one
	for before := applied(); written < 1000; before = applied() {
		if err = write(10 * time.Second); err != nil {
			break
		}
		if behind++; applied() != before {
			behind = 0
		}
	}
	refused := fmt.Sprint(err)
	if behind < 10 {
		t.Errorf("only %d changes were made since one disk was full", behind)
	}
	t.Logf("%d changes, %d of them since one disk was full, then: %v", written, behind, err)
	for range 5 {
		err := write(time.Second)
		if err == nil {
			t.Fatal("a change was made on full disks")
		}
		refused += "; " + err.Error()
	}
	if !strings.Contains(refused, "no space left") { // not in each: a leader that has room waits for others that have none
		t.Errorf("nobody says that disks are full: %s", refused)
	}
	for id, n := range p.nodes {
		select {
		case err := <-n.ended:
			t.Fatalf("replica %s has ended: %v", id, err)
		default:
		}
	}
	if p.nodes[follower].log.Failures() == 0 {
		t.Error("no failure is counted")
	}
	for _, d := range disks {
		d.resize(100 << 20)
	}
	eventually(t, "a change with room again", func() bool { return write(time.Second) == nil })
	eventually(t, "all have all of it", func() bool {
		a, b, c := latest(p.nodes["a"].store), latest(p.nodes["b"].store), latest(p.nodes["c"].store)
		return digest(a) == digest(b) && digest(b) == digest(c)
	})
	for n := range written {
		if _, ok := latest(p.nodes[follower].store).Get(mesh.PolicyKey(mesh.KindDestinationRule, "shop", fmt.Sprint("p", n))); !ok {
			t.Fatalf("change %d of %d was acknowledged and is lost", n, written)
		}
	}
}
