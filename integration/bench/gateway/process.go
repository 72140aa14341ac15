package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The cores of the load and of the proxy that is measured.
const (
	loadCPU  = 0
	proxyCPU = 1
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux architecture that Go supports.
const ticksPerSecond = 100

// process is one that this program started.
type process struct {
	command *exec.Cmd
	address string
}

func startSelf(ctx context.Context, role string, cpu int, listen, upstream string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startPinned(ctx, cpu, listen, self, "-role", role, "-listen", listen, "-upstream", upstream)
}

func startPinned(ctx context.Context, cpu int, address string, argv ...string) (*process, error) {
	command := exec.CommandContext(ctx, "taskset", append([]string{"-c", strconv.Itoa(cpu)}, argv...)...)
	command.Stderr = os.Stderr
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return &process{command, address}, nil
}

func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(3*time.Second, func() { _ = p.command.Process.Kill() })
	defer timer.Stop()
	_ = p.command.Wait()
}

// cpu is user and system time so far. The proxies run in the process that taskset became.
func (p *process) cpu() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	if err != nil {
		panic(err) // it ended in the middle of a measurement
	}
	return parseStat(string(data))
}

// parseStat adds fields 14 and 15 (proc_pid_stat(5)); the name in field 2 may hold spaces.
func parseStat(stat string) time.Duration {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / ticksPerSecond
}

func pinSelf(cpu int) error {
	return exec.Command("taskset", "-a", "-cp", strconv.Itoa(cpu), strconv.Itoa(os.Getpid())).Run()
}
