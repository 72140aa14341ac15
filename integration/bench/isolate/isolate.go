// Package isolate measures on the same terms everywhere: in a network namespace of the benchmark's own, with Linux's
// default congestion control, whatever the machine has set. The machine's settings stay as they are.
package isolate

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// congestionControl is Linux's default. It decides the result: BBR paces, and every packet that it holds back costs a
// timer interrupt and a softirq, on loopback several times the cost of the copying.
const congestionControl = "cubic"

// CongestionFile has the setting that is in force.
const CongestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"

// Flag is given to the program that runs inside; main calls Enter if it has it and Run if it has not.
const Flag = "isolated"

// Run runs this program again in a network namespace of its own, with Flag before the arguments that it has.
func Run(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, self, append([]string{"-" + Flag}, os.Args[1:]...)...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if uid := os.Getuid(); uid != 0 {
		command.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		command.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		command.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("network namespace: %w (-host measures without one)", err)
	}
	return command.Wait()
}

// Enter is the first thing to do there.
func Enter() error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("network namespace: loopback: %w", err)
	}
	if err := os.WriteFile(CongestionFile, []byte(congestionControl), 0); err != nil {
		return fmt.Errorf("network namespace: %w (the machine must have %s in net.ipv4.tcp_allowed_congestion_control; -host measures "+
			"without a namespace)", err, congestionControl)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}
