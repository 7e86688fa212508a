// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"context"
	"log/slog"
	"strings"

	"k8s.io/klog/v2"
)

// LogTo has what client-go itself would write to standard error, in a form of its
// own, written to log: what fails as a warning, since it is tried again, and all
// else for who looks into it. Its finer levels are left out. It is the
// program's to call, once and before anything asks the API.
func LogTo(log *slog.Logger) {
	klog.SetSlogLogger(slog.New(handler{log.With("component", "client-go").Handler()}))
}

// handler gives records of klog's levels of this program's.
type handler struct{ slog.Handler }

func level(klogs slog.Level) slog.Level {
	if klogs >= slog.LevelError {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled leaves out what klog has at level 1 and above.
func (h handler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo && h.Handler.Enabled(ctx, level(l))
}

// Handle passes a record on.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	r.Level, r.Message = level(r.Level), strings.TrimSpace(r.Message)
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the levels.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the levels.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
