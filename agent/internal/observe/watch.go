package observe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// gather is how long changes are collected after the first: editors and package
// managers write a file in several steps.
const gather = 100 * time.Millisecond

// Watcher tells which watched paths may have changed. It watches the folders
// that hold them, because a watch on a file goes deaf when the file is
// replaced; where a folder doesn't exist yet, the nearest one above.
type Watcher struct {
	log    *slog.Logger
	notify *fsnotify.Watcher
	events chan []string

	mu      sync.Mutex
	paths   map[string]bool
	folders map[string]bool // that are watched
}

// NewWatcher watches nothing until Set, and ends with ctx. It fails where the
// system gives out no more inotify instances.
func NewWatcher(ctx context.Context, log *slog.Logger) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch files: %w; raise fs.inotify.max_user_instances", err)
	}
	w := &Watcher{log: log, notify: notify, events: make(chan []string), paths: map[string]bool{}, folders: map[string]bool{}}
	go w.run(ctx)
	return w, nil
}

// Set replaces the paths that are watched; they are absolute and clean. A path
// may be a file, a symlink or a folder: it is its entry in the folder above that
// is watched. What can't be watched is logged and left to the agent's scans.
func (w *Watcher) Set(paths []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = make(map[string]bool, len(paths))
	for _, p := range paths {
		w.paths[p] = true
	}
	w.arrange()
}

// Events delivers the paths that may have changed, sorted. None at all means
// that so much happened that any may have. What isn't received yet is merged
// with what follows. The channel is never closed.
func (w *Watcher) Events() <-chan []string { return w.events }

// arrange makes the watched folders those that paths need now; w.mu is held.
func (w *Watcher) arrange() {
	// Between choosing a folder and watching it, one below it may have come.
	for range 8 {
		need := map[string]bool{}
		for p := range w.paths {
			need[nearest(filepath.Dir(p))] = true
		}
		if maps.Equal(need, w.folders) {
			return
		}
		for folder := range w.folders {
			if !need[folder] {
				w.unwatch(folder)
			}
		}
		for folder := range need {
			if !w.folders[folder] {
				w.watch(folder)
			}
		}
	}
}

func (w *Watcher) watch(folder string) {
	if err := w.notify.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("cannot watch a folder; changes there are found by scans only", "folder", folder, "error", err)
	}
	w.folders[folder] = true
}

func (w *Watcher) unwatch(folder string) {
	if err := w.notify.Remove(folder); err != nil && !errors.Is(err, fsnotify.ErrNonExistentWatch) {
		w.log.Debug("cannot stop watching a folder", "folder", folder, "error", err)
	}
	delete(w.folders, folder)
}

// nearest returns the folder, or the nearest above it that exists.
func nearest(folder string) string {
	for {
		if info, err := os.Stat(folder); err == nil && info.IsDir() || folder == filepath.Dir(folder) {
			return folder
		}
		folder = filepath.Dir(folder)
	}
}

func (w *Watcher) run(ctx context.Context) {
	defer func() {
		if err := w.notify.Close(); err != nil {
			w.log.Debug("cannot stop watching files", "error", err)
		}
	}()
	all, changed := false, map[string]bool{}
	gathered := time.NewTimer(time.Hour)
	gathered.Stop()
	waiting := false
	var out chan<- []string
	for {
		var batch []string
		if out != nil && !all {
			batch = slices.Sorted(maps.Keys(changed))
		}
		select {
		case <-ctx.Done():
			return
		case e := <-w.notify.Events:
			for _, p := range w.affected(e) {
				changed[p] = true
			}
		case err := <-w.notify.Errors:
			// Above all an overflow of the kernel's queue: names are lost.
			w.log.Debug("file events were lost; looking at everything", "error", err)
			all = true
		case <-gathered.C:
			waiting, out = false, w.events
		case out <- batch:
			all, changed, out = false, map[string]bool{}, nil
		}
		if (all || len(changed) > 0) && !waiting && out == nil {
			gathered.Reset(gather)
			waiting = true
		}
	}
}

// affected returns the watched paths that an event is about.
func (w *Watcher) affected(e fsnotify.Event) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paths[e.Name] {
		return []string{e.Name}
	}
	// A watched folder itself went away, or one on the way to a watched path came
	// or went: what is below it changed with it.
	var below []string
	for p := range w.paths {
		if strings.HasPrefix(p, strings.TrimSuffix(e.Name, "/")+"/") {
			below = append(below, p)
		}
	}
	if len(below) == 0 {
		return nil
	}
	if e.Op.Has(fsnotify.Remove) || e.Op.Has(fsnotify.Rename) {
		// The watch, if there was one, went with the folder.
		if w.folders[e.Name] {
			w.unwatch(e.Name)
		}
	}
	w.arrange()
	return below
}
