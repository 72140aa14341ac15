package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/periplus-mesh/periplus/internal/cli"
	"github.com/periplus-mesh/periplus/internal/up"
)

// detached runs the same command in a session of its own and waits until its mesh is ready.
func detached(ctx context.Context, plan *up.Plan, out io.Writer) error {
	if err := up.CheckFolder(plan.Dir); err != nil {
		return err // or the one that runs there would seem to be the one that was asked for
	}
	if err := os.MkdirAll(filepath.Join(plan.Dir, "logs"), 0o700); err != nil {
		return err
	}
	path := filepath.Join(plan.Dir, "logs", "up.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	binary := filepath.Join(plan.Dir, "up") // 'go run' deletes what it built when this command returns
	if err := up.CopyFile(plan.Executable, binary); err != nil {
		return err
	}
	child := exec.Command(binary, "up", "--dir", plan.Dir, "--clusters", fmt.Sprint(len(plan.Clusters)), "--prefix", plan.Prefix,
		"--rate", fmt.Sprint(plan.Rate), "--context-name", plan.Context, "--svid-ttl", plan.SVIDTTL)
	child.Stdout, child.Stderr = log, log
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	fmt.Fprintln(out, "Starting; progress in "+path)
	err = awaitReady(ctx, plan, ended, path, out)
	if ctx.Err() != nil { // interrupted while it starts: nothing stays behind
		child.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	return err
}

func awaitReady(ctx context.Context, plan *up.Plan, ended chan error, log string, out io.Writer) error {
	control, err := up.NewControl(plan.Dir)
	if err != nil {
		return err
	}
	for {
		if report, err := control.Report(ctx); err == nil && report.Ready {
			fmt.Fprintf(out, "The mesh is ready.\nDashboard: %s\n'%s' lists its processes, '%s' ends it.\n",
				report.Dashboard, plan.Command("up status"), plan.Command("down"))
			return nil
		}
		select {
		case err := <-ended:
			ended <- nil // for who waits after this
			text, _ := os.ReadFile(log)
			code := cli.ExitUnknown
			if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > 0 {
				code = exit.ExitCode()
			}
			return cli.Exit(code, fmt.Errorf("the mesh did not start:\n%s", text))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}
