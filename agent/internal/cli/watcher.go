package cli

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/agent/internal/config"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/agent/internal/systemd"
)

// watcher merges file-system events and D-Bus signals into one stream.
type watcher struct {
	cfg     config.Config
	files   *observe.Watcher
	units   *systemd.Watch
	changes chan string
}

func newWatcher(ctx context.Context, cfg config.Config, log *slog.Logger) (*watcher, error) {
	files, err := observe.NewWatcher(ctx, log)
	if err != nil {
		return nil, err
	}
	w := &watcher{cfg: cfg, files: files, units: systemd.NewWatch(ctx, systemdConfig(cfg), log), changes: make(chan string)}
	go w.forward(ctx)
	return w, nil
}

func (w *watcher) forward(ctx context.Context) {
	for {
		var names []string
		select {
		case <-ctx.Done():
			return
		case names = <-w.files.Events():
		case names = <-w.units.Events():
		}
		what := strings.Join(names, " ")
		if what == "" {
			what = "anything"
		}
		select {
		case <-ctx.Done():
			return
		case w.changes <- what:
		}
	}
}

// Watch implements loop.Watcher.
func (w *watcher) Watch(files, units, packages []string) {
	paths := slices.Clone(files)
	for _, u := range units {
		paths = append(paths, filepath.Join(w.cfg.Paths.Units, u))
	}
	for _, p := range packages {
		folder := filepath.Join(w.cfg.Paths.Packages, p)
		paths = append(paths, filepath.Join(folder, "current"))
		// The version that it leads to may go as well.
		if target, err := os.Readlink(filepath.Join(folder, "current")); err == nil && filepath.IsLocal(target) {
			paths = append(paths, filepath.Join(folder, target))
		}
	}
	w.files.Set(paths)
	w.units.Set(units)
}

// Changes implements loop.Watcher.
func (w *watcher) Changes() <-chan string { return w.changes }
