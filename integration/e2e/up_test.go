package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

// small is a mesh of one cluster, with contexts of its own.
type small struct{ dir, prefix, contexts string }

func (s small) command(args ...string) *exec.Cmd {
	command := exec.Command(running.binary, args...)
	command.Env = append(os.Environ(), cli.EnvConfig+"="+s.contexts)
	return command
}

func (s small) up(more ...string) *exec.Cmd {
	return s.command(append([]string{"up", "--dir", s.dir, "--prefix", s.prefix, "--clusters", "1", "--rate", "2"}, more...)...)
}

// serves asks the shop of the mesh.
func (s small) serves(t *testing.T) {
	t.Helper()
	within(t, 5*time.Second, "the shop answers", func() error {
		status, body, _ := ask(t, s.prefix+".1.24:15001", "storefront.shop", "/", nil)
		if status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

// registered is when its cluster was, and with which generation of credentials.
func (s small) registered(t *testing.T) string {
	t.Helper()
	out, err := s.command("cluster", "describe", "eu-west").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Join(regexp.MustCompile(`Registered:.*|generation \d+`).FindAllString(string(out), -1), " ")
}

func (s small) down(t *testing.T) {
	t.Helper()
	if out, err := s.command("down", "--dir", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := leftovers(s.dir); err != nil {
		t.Error(err)
	}
}

// refused expects a command to fail with a message that says certain things.
func refused(t *testing.T, command *exec.Cmd, says ...string) {
	t.Helper()
	out, err := command.CombinedOutput()
	if err == nil {
		t.Errorf("%v: it worked: %s", command.Args[1:], out)
	}
	for _, want := range says {
		if !strings.Contains(string(out), want) {
			t.Errorf("%v: %s\ndoes not say %q", command.Args[1:], out, want)
		}
	}
}

// 'up' goes on where it ended, says clearly what keeps it from starting, and ends what it started and nothing else.
func TestUpResumesAndEnds(t *testing.T) {
	root, err := os.MkdirTemp("", "up")
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(prefix, ".")
	s := small{filepath.Join(root, "mesh"), first + ".1" + second, filepath.Join(root, "contexts")}
	release, err := guard(running.binary, s.dir, root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	others := running.pids(t)
	if out, err := s.up("--detach").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.serves(t)
	registered, credential := s.registered(t), s.credential(t)

	refused(t, s.up("--detach"), "a mesh runs in "+s.dir, "periplus down")
	elsewhere := small{filepath.Join(root, "other"), s.prefix, filepath.Join(root, "contexts-2")}
	refused(t, elsewhere.up(), "address "+s.prefix+".", "is taken", "--prefix")
	s.down(t)
	moved := small{s.dir, first + ".2" + second, s.contexts}
	refused(t, moved.up(), "use --prefix "+s.prefix)

	foreground := s.up()
	out := new(output)
	foreground.Stdout, foreground.Stderr = out, out
	if err := foreground.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- foreground.Wait() }()
	control, err := up.NewControl(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	took := within(t, 40*time.Second, "it is ready again", func() error {
		report, err := control.Report(context.Background())
		if err == nil && !report.Ready {
			err = fmt.Errorf("not ready: %s", out)
		}
		return err
	})
	t.Logf("ready again after %v", took)
	s.serves(t)
	within(t, 25*time.Second, "what it shows where there is no terminal", func() error {
		for _, want := range []string{`Dashboard: http://`, `periplus up kill catalog-eu-west-a`, `eu-west \d+/s \d+\.\d\d% p99 \d+\.\dms`, `(\d+) of \d+ processes run`} {
			if !regexp.MustCompile(want).MatchString(out.String()) {
				return fmt.Errorf("%s is not in %s", want, out)
			}
		}
		return nil
	})
	if now := s.registered(t); now != registered || registered == "" {
		t.Errorf("registered as %q, before %q", now, registered)
	}
	if now := s.credential(t); now != credential || credential == "" {
		t.Error("the agent registered again")
	}
	if err := foreground.Process.Signal(syscall.SIGINT); err != nil { // Ctrl-C
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("after Ctrl-C: %v: %s", err, out)
		}
	case <-time.After(40 * time.Second):
		foreground.Process.Kill()
		t.Fatalf("it runs 40 s after Ctrl-C: %s", out)
	}
	if err := leftovers(s.dir); err != nil {
		t.Error(err)
	}
	for name, pid := range running.pids(t) {
		if others[name] != pid {
			t.Errorf("%s of the other mesh was %d and is %d", name, others[name], pid)
		}
	}
}

// credential is the certificate that the agent got when it registered.
func (s small) credential(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.dir, "agent", "eu-west", "credential.json"))
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`"token_sha256": "\w+"`).FindString(string(data))
}

// frame is what a terminal shows now.
func frame(out *output) string {
	frames := strings.Split(out.String(), "\x1b[H")
	now, _, _ := strings.Cut(frames[len(frames)-1], "\x1b[J")
	return strings.ReplaceAll(now, "\x1b[K", "")
}

// The view in the terminal has the figures of each region and where the traffic of each service goes: one sees the
// failover, and the return.
func TestViewShowsFailoverAndReturn(t *testing.T) {
	out := new(output)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		up.View{Out: out, Terminal: true}.Show(ctx, running.plan, func() up.Report {
			report, err := running.control.Report(ctx)
			if err != nil {
				return up.Report{}
			}
			return *report
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	shows := func(what string, lines ...string) {
		t.Helper()
		within(t, 20*time.Second, what, func() error {
			for _, line := range lines {
				if !regexp.MustCompile(`(?m)^` + line).MatchString(frame(out)) {
					return fmt.Errorf("no line %q in\n%s", line, frame(out))
				}
			}
			return nil
		})
	}
	home := `catalog +each region's own$`
	shows("health", `VISITORS IN +REQUESTS/S +SUCCESS +P50 +P99`, `eu-west +[1-9]\S* +100.00% +\d+\.\dms +\d+\.\dms`, `us-east +[1-9]`, `ap-south +[1-9]`,
		home, `inventory +each region's own$`, `Dashboard: http://`, `  periplus up kill catalog-eu-west-a`)
	running.act(t, "kill", "catalog-eu-west-a", "catalog-eu-west-b")
	shows("the failover", `catalog +eu-west -> (us-east|ap-south) \d+%(, (us-east|ap-south) \d+%)?$`, `Down: catalog-eu-west-a`, `(Down: .*)?catalog-eu-west-b`)
	running.restore(t, "catalog-eu-west-a")
	running.restore(t, "catalog-eu-west-b")
	shows("the return", home)
	if strings.Contains(frame(out), "Down:") {
		t.Errorf("everything runs:\n%s", frame(out))
	}
}
