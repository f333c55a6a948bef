package systemd

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Watch tells which units changed.
type Watch struct {
	cfg    Config
	log    *slog.Logger
	events chan []string

	mu    sync.Mutex
	units map[dbus.ObjectPath]string
}

const (
	// gather is how long changes are collected after the first: a stop or start
	// is several.
	gather = 50 * time.Millisecond
	// While a manager is gone, the time to the next dial doubles from one to the other.
	firstRedial, lastRedial = 100 * time.Millisecond, 10 * time.Second
)

// NewWatch watches until ctx ends. Nothing is reported before Set, except that
// anything may have changed.
func NewWatch(ctx context.Context, cfg Config, log *slog.Logger) *Watch {
	w := &Watch{cfg: cfg, log: log, events: make(chan []string)}
	go w.run(ctx)
	return w
}

// Set replaces the units that are watched.
func (w *Watch) Set(units []string) {
	paths := make(map[dbus.ObjectPath]string, len(units))
	for _, u := range units {
		paths[unitPath(u)] = u
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.units = paths
}

// Events delivers the names of units whose state changed, sorted. None at all
// means that anything may have changed: the manager was reached again, read its
// unit files, or unit files were enabled or disabled. What isn't received yet
// is merged with what follows. The channel is never closed.
func (w *Watch) Events() <-chan []string { return w.events }

func (w *Watch) run(ctx context.Context) {
	wait := firstRedial
	for ctx.Err() == nil {
		conn, signals, err := w.subscribe(ctx)
		if err == nil {
			wait = firstRedial
			w.follow(ctx, signals)
			if err := conn.Close(); err != nil {
				w.log.Debug("cannot close a connection to systemd", "error", err)
			}
		} else if wait == firstRedial {
			w.log.Warn("systemd cannot be watched; will try again", "error", err)
		}
		// Also after a connection that ended: one may end at once, again and again.
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		if err != nil {
			wait = min(2*wait, lastRedial)
		}
	}
}

// subscribe opens a connection on which the manager sends its signals.
func (w *Watch) subscribe(ctx context.Context) (*dbus.Conn, <-chan *dbus.Signal, error) {
	lifetime, cancel := context.WithCancel(ctx)
	conn, err := dialWithin(ctx, cancel, func() (*dbus.Conn, error) { return w.cfg.dial(lifetime) })
	if err != nil {
		cancel()
		return nil, nil, err
	}
	// The connection's own end releases its context too.
	context.AfterFunc(conn.Context(), cancel)
	signals := make(chan *dbus.Signal, 256)
	conn.Signal(signals)
	// Rules matter on a bus only; the private socket knows no bus to ask.
	for _, options := range [][]dbus.MatchOption{
		{dbus.WithMatchInterface("org.freedesktop.DBus.Properties"), dbus.WithMatchMember("PropertiesChanged"),
			dbus.WithMatchPathNamespace("/org/freedesktop/systemd1/unit"), dbus.WithMatchArg(0, "org.freedesktop.systemd1.Unit")},
		{dbus.WithMatchInterface(managerInterface)},
	} {
		var refusal dbus.Error
		if err := conn.AddMatchSignalContext(ctx, options...); err != nil && !errors.As(err, &refusal) {
			return nil, nil, errors.Join(err, conn.Close())
		}
	}
	manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	if err := manager.CallWithContext(ctx, managerInterface+".Subscribe", 0).Err; err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, signals, nil
}

const managerInterface = "org.freedesktop.systemd1.Manager"

// follow turns signals into events until the connection ends.
func (w *Watch) follow(ctx context.Context, signals <-chan *dbus.Signal) {
	// What happened before isn't known.
	all, changed := true, map[string]bool{}
	gathered := time.NewTimer(0)
	defer gathered.Stop()
	waiting := true
	var out chan<- []string
	for {
		var batch []string
		if out != nil && !all {
			batch = slices.Sorted(maps.Keys(changed))
		}
		select {
		case <-ctx.Done():
			return
		case s, ok := <-signals:
			if !ok {
				return
			}
			unit, everything := w.judge(s)
			if unit == "" && !everything {
				continue
			}
			if unit != "" {
				changed[unit] = true
			}
			all = all || everything
			if !waiting && out == nil {
				gathered.Reset(gather)
				waiting = true
			}
		case <-gathered.C:
			waiting, out = false, w.events
		case out <- batch:
			all, changed, out = false, map[string]bool{}, nil
		}
	}
}

// judge returns the watched unit that a signal is about, or whether it is about
// everything.
func (w *Watch) judge(s *dbus.Signal) (unit string, everything bool) {
	switch s.Name {
	case managerInterface + ".UnitFilesChanged":
		return "", true
	case managerInterface + ".Reloading":
		// Sent with true before, with false after.
		begins, ok := first(s.Body).(bool)
		return "", ok && !begins
	case "org.freedesktop.DBus.Properties.PropertiesChanged":
		if first(s.Body) != "org.freedesktop.systemd1.Unit" || !strings.HasPrefix(path.Dir(string(s.Path)), "/org/freedesktop/systemd1/unit") {
			return "", false
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.units[s.Path], false
	}
	return "", false
}

func first(body []any) any {
	if len(body) == 0 {
		return nil
	}
	return body[0]
}
