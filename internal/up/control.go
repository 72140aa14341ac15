package up

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Report is what a running mesh says of itself on its socket.
type Report struct {
	Dashboard string   `json:"dashboard"`
	Ready     bool     `json:"ready"`
	Processes []Status `json:"processes"`
}

func socketPath(dir string) string { return filepath.Join(dir, "up.sock") }

// serveControl answers on the folder's socket until ctx ends; down is called when somebody asks for the end.
func (r *runner) serveControl(ctx context.Context, down context.CancelFunc) error {
	path := socketPath(r.plan.Dir)
	os.Remove(path) // the folder's lock is ours, so whoever made it is gone
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(r.report()) })
	mux.HandleFunc("POST /down", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "0") // the answer is whole before the end closes the connection
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		down()
	})
	mux.HandleFunc("POST /process/{name}/{action}", func(w http.ResponseWriter, q *http.Request) {
		if err := r.act(q.PathValue("name"), q.PathValue("action")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (r *runner) act(name, action string) error {
	actions := map[string]func(string) error{
		"start": r.supervisor.Start, "stop": r.supervisor.Stop, "kill": r.supervisor.Kill,
		"pause": r.supervisor.Pause, "resume": r.supervisor.Resume,
	}
	do, ok := actions[action]
	if !ok {
		return fmt.Errorf("no action %q", action)
	}
	return do(name)
}

func (r *runner) report() Report {
	return Report{Dashboard: r.plan.DashboardURL(0), Ready: r.ready.Load(), Processes: r.supervisor.Statuses()}
}

// Control talks to the mesh that runs in a folder.
type Control struct {
	client *http.Client
	dir    string
}

// answerTimeout bounds the wait for a call's answer: stopping a process takes [stopTimeout] at most.
const answerTimeout = 2 * stopTimeout

// NewControl of the mesh in dir; "" is the default folder. Nothing is dialled yet.
func NewControl(dir string) (*Control, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return nil, err
		}
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socketPath(dir))
	}
	return &Control{&http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: answerTimeout}, dir}, nil
}

// ErrNoAnswer is in every error of a Control whose mesh does not run or does not answer, so that what was asked for may
// have been done or not.
var ErrNoAnswer = errors.New("no answer")

type noAnswer struct{ error }

func (noAnswer) Is(target error) bool { return target == ErrNoAnswer }
func (e noAnswer) Unwrap() error      { return e.error }

// Report of the running mesh.
func (c *Control) Report(ctx context.Context) (*Report, error) {
	body, err := c.call(ctx, http.MethodGet, "/report")
	if err != nil {
		return nil, err
	}
	report := new(Report)
	return report, json.Unmarshal(body, report)
}

// Act does start, stop, kill, pause or resume to a process.
func (c *Control) Act(ctx context.Context, action, name string) error {
	_, err := c.call(ctx, http.MethodPost, "/process/"+url.PathEscape(name)+"/"+action)
	return err
}

// Down asks the mesh to end, and waits until it has.
func (c *Control) Down(ctx context.Context) error {
	if _, err := c.call(ctx, http.MethodPost, "/down"); err != nil {
		return err
	}
	for {
		held, err := lock(c.dir)
		if err == nil {
			return held.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the mesh in %s has not ended yet: %w", c.dir, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Control) call(ctx context.Context, method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://up"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, noAnswer{fmt.Errorf("no mesh runs in %s: 'periplus up' starts one, --dir names another folder", c.dir)}
	}
	if err != nil {
		return nil, noAnswer{fmt.Errorf("the mesh in %s does not answer: %w", c.dir, err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(string(bytes.TrimSpace(body)))
	}
	return body, err
}

// Names of the processes, for completion: those that are not given yet.
func (r *Report) Names(prefix string, given []string) (out []string) {
	for _, p := range r.Processes {
		if strings.HasPrefix(p.Name, prefix) && !slices.Contains(given, p.Name) {
			out = append(out, p.Name)
		}
	}
	return out
}
