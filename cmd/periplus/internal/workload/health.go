package workload

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// healthCheck asks a workload again and again whether it is well.
type healthCheck struct {
	target string // http://, https:// or tcp://; "": none
	every  time.Duration
	times  int // in a row, that change the verdict
}

func (h *healthCheck) validate() error {
	if h.target == "" {
		return nil
	}
	u, err := url.Parse(h.target)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "tcp":
		return fmt.Errorf("--health-check %q: want http://HOST:PORT/PATH or tcp://HOST:PORT", h.target)
	case h.every < 100*time.Millisecond:
		return fmt.Errorf("--health-interval %s: want at least 100ms", h.every)
	case h.times < 1:
		return fmt.Errorf("--health-threshold %d: want at least 1", h.times)
	}
	return nil
}

// run tells of every change of health until ctx is done. The workload counts as healthy at first.
func (h *healthCheck) run(ctx context.Context, log *slog.Logger, tell func(healthy bool)) {
	if h.target == "" {
		return
	}
	healthy, against := true, 0
	ticker := time.NewTicker(h.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := h.check(ctx)
		if (err == nil) == healthy {
			against = 0
			continue
		}
		if against++; against < h.times || ctx.Err() != nil {
			continue
		}
		healthy, against = !healthy, 0
		log.Info("health changed", "healthy", healthy, "err", err)
		tell(healthy)
	}
}

func (h *healthCheck) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, h.every)
	defer cancel()
	u, err := url.Parse(h.target)
	if err != nil {
		return err
	}
	if u.Scheme == "tcp" {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.target, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, 1<<20)); err != nil {
		return err
	}
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s answers %s", h.target, response.Status)
	}
	return nil
}
