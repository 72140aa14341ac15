package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var probe = &http.Client{Timeout: 500 * time.Millisecond}

func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := probe.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// tail returns the last lines of a log, indented.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return "    " + string(bytes.Join(all, []byte("\n    ")))
}

// lock takes the folder for this process; the kernel gives it back when the process ends, however it ends.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "up.lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		return nil, fmt.Errorf("a mesh runs in %s already: '%s' ends it, --dir and --prefix make room for another", dir, command(dir, "down"))
	}
	return file, nil
}

// CheckFolder says why no mesh can start in dir now, or nil.
func CheckFolder(dir string) error {
	held, err := lock(dir)
	if err != nil {
		return err
	}
	return held.Close()
}

// What a folder remembers of the options of its mesh, a file each.
const (
	prefixFile   = "prefix"
	clustersFile = "cluster-count"
)

// Resumed fills what is not set with what the mesh in Dir was last started with, if there is one.
func (o Options) Resumed() (Options, error) {
	if err := o.validatePaths(); err != nil {
		return o, err
	}
	prefix, err := kept(o.Dir, prefixFile)
	if err != nil {
		return o, err
	}
	clusters, err := kept(o.Dir, clustersFile)
	if err != nil {
		return o, err
	}
	if o.Prefix == "" {
		o.Prefix = prefix
	}
	if o.Clusters == 0 && clusters != "" {
		if o.Clusters, err = strconv.Atoi(clusters); err != nil {
			return o, fmt.Errorf("%s: %w", filepath.Join(o.Dir, clustersFile), err)
		}
	}
	return o, nil
}

func kept(dir, file string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(data)), err
}

// samePrefix refuses other addresses than the folder's. A mesh's addresses are in its state: replicas know each other
// by them, clusters are confined to them.
func (p *Plan) samePrefix() error {
	prefix, err := kept(p.Dir, prefixFile)
	if err == nil && prefix != "" && prefix != p.Prefix {
		err = fmt.Errorf("the mesh in %s has the addresses %s.0.0/16: use --prefix %s, or another --dir for a new mesh", p.Dir, prefix, prefix)
	}
	return err
}

// keep remembers the options with the folder.
func (p *Plan) keep() error {
	err := os.WriteFile(p.path(prefixFile), []byte(p.Prefix), 0o600)
	if err == nil {
		err = os.WriteFile(p.path(clustersFile), []byte(strconv.Itoa(len(p.Clusters))), 0o600)
	}
	return err
}

// free checks every address that the plan listens on, so that a port that is taken is named before anything starts.
func (p *Plan) free() error {
	for _, process := range p.Processes {
		for _, address := range process.Listens {
			listener, err := net.Listen("tcp", address)
			if errors.Is(err, syscall.EADDRINUSE) {
				return p.taken(address)
			}
			if err != nil {
				return fmt.Errorf("address %s: %w: the mesh needs the loopback range 127.0.0.0/8 as Linux has it", address, err)
			}
			listener.Close()
		}
	}
	return nil
}

// elsewhere is a loopback address that nobody has reason to use.
const elsewhere = "127.255.254.253"

// taken says who is in the way: a program that listens on all addresses is in the way of every prefix.
func (p *Plan) taken(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(elsewhere, port))
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("address %s is taken: another program listens on port %s of all addresses; end it ('ss -ltnp sport = :%s' names it)", address, port, port)
	}
	if err == nil {
		listener.Close()
	}
	return fmt.Errorf("address %s is taken by another program: end it, or choose other addresses with --prefix (now %s)", address, p.Prefix)
}

// installBinaries puts one copy of the executable below Dir and a hard link for each identity. A copy outlives
// 'go run', which deletes what it built.
func (p *Plan) installBinaries() error {
	master := p.path("bin", "periplus")
	if err := CopyFile(p.Executable, master); err != nil {
		return fmt.Errorf("install %s: %w", master, err)
	}
	for _, process := range p.Processes {
		path := p.Binary(process)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		os.Remove(path)
		if err := os.Link(master, path); err != nil {
			return fmt.Errorf("install %s: %w", path, err)
		}
	}
	return nil
}

// CopyFile copies an executable, atomically.
func CopyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".tmp", to)
}

// writeServices is each cluster's service file: what an owner of the cluster would write.
func (p *Plan) writeServices() error {
	for _, c := range p.Clusters {
		var b strings.Builder
		for _, service := range shop {
			fmt.Fprintf(&b, "---\napiVersion: periplus.io/v1\nkind: Service\nmetadata:\n  name: %s\n  namespace: shop\nspec:\n  exported: true\n  ports:\n  - name: http\n    port: 80\n    protocol: http\n", service)
			if service == stock {
				fmt.Fprintf(&b, "  - name: grpc\n    port: %d\n    protocol: grpc\n  - name: echo\n    port: %d\n    protocol: tcp\n", stockGRPCPort, stockEchoPort)
			}
		}
		path := p.servicesFile(c)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if _, err := os.Stat(path); err == nil {
			continue // people may have changed it
		}
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}
