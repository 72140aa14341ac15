package process

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/periplus-mesh/periplus/internal/cli"
)

// actAs makes this test's binary a program: what it does is in the variable.
const actAs = "PERIPLUS_PROCESS_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(actAs) {
	case "":
		os.Exit(m.Run())
	case "nohup":
		signal.Ignore(syscall.SIGHUP)
	}
	Main(&cobra.Command{Use: "program", RunE: func(c *cobra.Command, _ []string) error {
		os.Stdout.WriteString("runs\n")
		<-c.Context().Done()
		os.Stdout.WriteString("ends\n")
		if os.Getenv(actAs) == "slow" {
			time.Sleep(time.Minute)
		}
		return Interrupted(c.Context(), c.Context().Err())
	}})
}

const patience = 10 * time.Second

// program runs this binary as a program and returns it once it runs, with what reads a word that it prints; "" is none
// within a time.
func program(t *testing.T, as string) (*exec.Cmd, func(time.Duration) string) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), actAs+"="+as)
	command.Stdout = in
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	t.Cleanup(func() {
		command.Process.Kill()
		out.Close()
	})
	read := func(within time.Duration) string {
		out.SetReadDeadline(time.Now().Add(within))
		line := make([]byte, len("runs\n"))
		n, _ := out.Read(line)
		return strings.TrimSpace(string(line[:n]))
	}
	if got := read(patience); got != "runs" {
		t.Fatalf("it printed %q", got)
	}
	return command, read
}

// A closed terminal ends a program as Ctrl-C does, in good order; under nohup it goes on.
func TestEveryWayToEndIsInGoodOrder(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		command, read := program(t, "program")
		command.Process.Signal(s)
		if got := read(patience); got != "ends" {
			t.Errorf("%v: it printed %q", s, got)
		}
		if err := command.Wait(); err != nil {
			t.Errorf("%v: %v", s, err)
		}
	}
	command, read := program(t, "nohup")
	command.Process.Signal(syscall.SIGHUP)
	if got := read(100 * time.Millisecond); got != "" {
		t.Errorf("under nohup it printed %q", got)
	}
	command.Process.Signal(syscall.SIGTERM)
	if got := read(patience); got != "ends" {
		t.Errorf("it printed %q", got)
	}
	if err := command.Wait(); err != nil {
		t.Error(err)
	}
}

func TestASecondInterruptEndsAtOnce(t *testing.T) {
	command, read := program(t, "slow")
	command.Process.Signal(syscall.SIGTERM)
	if got := read(patience); got != "ends" {
		t.Fatalf("it printed %q", got)
	}
	command.Process.Signal(syscall.SIGTERM) // as timeout(1) does
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("a second SIGTERM: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	for tick := time.Tick(10 * time.Millisecond); ; {
		command.Process.Signal(os.Interrupt)
		select {
		case err := <-ended:
			if err == nil || err.Error() != "signal: interrupt" {
				t.Errorf("it ended with %v", err)
			}
			return
		case <-tick:
		}
	}
}

func TestListenNamesFlagAndMistake(t *testing.T) {
	for _, address := range []string{"nowhere", "15012", "[::1"} {
		if _, err := Listen("address", address); cli.Code(err) != cli.ExitUsage || !strings.Contains(err.Error(), "--address") {
			t.Errorf("%q: %v", address, err)
		}
	}
	first, err := Listen("address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	taken := first.Addr().String()
	if _, err := Listen("admin-address", taken); err == nil || !strings.Contains(err.Error(), "--admin-address "+taken+": another program listens there") {
		t.Errorf("taken: %v", err)
	}
}
