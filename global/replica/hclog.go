package replica

import (
	"context"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// hcLog passes raft's log lines on to slog. Raft reports every election and every lost peer at Info or Warn; its
// errors are mostly peers that are away, which is not for a human to act on, so they become warnings.
type hcLog struct {
	log  *slog.Logger
	name string
	args []any
}

func newHCLog(l *slog.Logger) hclog.Logger { return &hcLog{log: l.With("part", "raft")} }

// levels maps hclog's levels; what is not there is dropped.
var levels = map[hclog.Level]slog.Level{
	hclog.Debug: slog.LevelDebug, hclog.Info: slog.LevelInfo, hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelWarn,
}

func (h *hcLog) Log(level hclog.Level, msg string, args ...any) {
	if to, ok := levels[level]; ok {
		h.log.Log(context.TODO(), to, msg, args...)
	}
}

func (h *hcLog) enabled(level slog.Level) bool { return h.log.Enabled(context.TODO(), level) }

func (h *hcLog) Trace(string, ...any)           {}
func (h *hcLog) Debug(msg string, args ...any)  { h.Log(hclog.Debug, msg, args...) }
func (h *hcLog) Info(msg string, args ...any)   { h.Log(hclog.Info, msg, args...) }
func (h *hcLog) Warn(msg string, args ...any)   { h.Log(hclog.Warn, msg, args...) }
func (h *hcLog) Error(msg string, args ...any)  { h.Log(hclog.Error, msg, args...) }
func (h *hcLog) IsTrace() bool                  { return false }
func (h *hcLog) IsDebug() bool                  { return h.enabled(slog.LevelDebug) }
func (h *hcLog) IsInfo() bool                   { return h.enabled(slog.LevelInfo) }
func (h *hcLog) IsWarn() bool                   { return h.enabled(slog.LevelWarn) }
func (h *hcLog) IsError() bool                  { return h.enabled(slog.LevelWarn) }
func (h *hcLog) ImpliedArgs() []any             { return h.args }
func (h *hcLog) Name() string                   { return h.name }
func (h *hcLog) Named(name string) hclog.Logger { return h.ResetNamed(name) }
func (h *hcLog) SetLevel(hclog.Level)           {}
func (h *hcLog) GetLevel() hclog.Level          { return hclog.Debug }

func (h *hcLog) With(args ...any) hclog.Logger {
	return &hcLog{h.log.With(args...), h.name, append(h.args[:len(h.args):len(h.args)], args...)}
}

func (h *hcLog) ResetNamed(name string) hclog.Logger { return &hcLog{h.log, name, h.args} }

func (h *hcLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(h.log.Handler(), slog.LevelInfo)
}

func (h *hcLog) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return h.StandardLogger(nil).Writer()
}
