package kube

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/periplus-mesh/periplus/integration/harness"
	"github.com/periplus-mesh/periplus/integration/realdeps"
)

const (
	prefix = "10.41" // of all addresses of the tests
	inside = "PERIPLUS_TEST_NAMESPACE"
)

// TestMain runs the tests in a network namespace.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := network(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	os.Exit(enter())
}

// enter runs this program again in a namespace. Where none can be had the tests say so and are skipped.
func enter() int {
	binaries, err := os.MkdirTemp("/tmp", "kb")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(binaries)
	if err := build(binaries); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	run := exec.Command("/proc/self/exe", os.Args[1:]...)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
	run.Env = append(os.Environ(), inside+"=yes", harness.EnvBinaries+"="+binaries)
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		run.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		run.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		run.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = run.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Printf("--- SKIP: all tests: missing: a network namespace: %v\n", err)
	}
	return 0
}

// build makes the programs while there still is a network, for modules that have yet to be fetched.
func build(dir string) error {
	root, err := realdeps.Root()
	if err != nil {
		return err
	}
	command := exec.Command("go", "build", "-o", dir, "./cmd/periplus", "./cmd/periplus-agent")
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, output)
	}
	return nil
}

// network makes loopback work, and every address of the prefix local.
func network() error {
	for _, command := range [][]string{{"ip", "link", "set", "lo", "up"}, {"ip", "route", "add", "local", prefix + ".0.0/16", "dev", "lo"}} {
		if output, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", command, err, output)
		}
	}
	return nil
}
