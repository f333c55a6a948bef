package apply_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// fake is a manager and a package store that can be told to crash the agent
// before and after every effect, which a real one can't.
type fake struct {
	dir      string // of unit files
	loaded   map[string]string
	running  map[string]int // number of the start, 0 for none
	enabled  map[string]bool
	starts   int
	restarts map[string]int
	reloads  map[string]int // of units
	// read is what the environment file held at each unit's last start.
	envFile string
	read    map[string]string
	current map[string]string
	staged  map[string]map[string]bool

	// left is how many points pass before a crash; negative for none.
	left int
	fail map[string]error // by "verb unit"
}

// crash is what a killed process looks like from a test.
type crash struct{}

func newFake(t *testing.T) *fake {
	t.Helper()
	return &fake{
		dir: t.TempDir(), loaded: map[string]string{}, running: map[string]int{}, enabled: map[string]bool{},
		restarts: map[string]int{}, reloads: map[string]int{}, read: map[string]string{},
		current: map[string]string{}, staged: map[string]map[string]bool{}, left: -1, fail: map[string]error{},
	}
}

// point is a place where the agent may be killed.
func (f *fake) point() {
	if f.left == 0 {
		panic(crash{})
	}
	if f.left > 0 {
		f.left--
	}
}

// effect does something between two points.
func (f *fake) effect(verb, unit string, do func()) error {
	f.point()
	if err := f.fail[verb+" "+unit]; err != nil {
		return err
	}
	do()
	f.point()
	return nil
}

func (f *fake) disk(unit string) (string, bool) {
	data, err := os.ReadFile(filepath.Join(f.dir, unit))
	return string(data), err == nil
}

func (f *fake) Units(_ context.Context, names []string) (map[string]host.UnitState, error) {
	states := map[string]host.UnitState{}
	for _, n := range names {
		disk, there := f.disk(n)
		if _, known := f.loaded[n]; there && !known {
			f.loaded[n] = disk // as the real one does, for a name it never saw
		}
		s := host.UnitState{LoadState: "not-found", ActiveState: "inactive"}
		if content, ok := f.loaded[n]; ok {
			s.LoadState, s.Fragment = "loaded", filepath.Join(f.dir, n)
			if strings.Contains(content, "BAD") {
				s.LoadState = "bad-setting"
			}
			s.NeedDaemonReload = disk != content
			s.UnitFileState = map[bool]string{true: "enabled", false: "disabled"}[f.enabled[n]]
		}
		if f.running[n] > 0 {
			s.ActiveState, s.InvocationID = "active", fmt.Sprint(f.running[n])
		}
		states[n] = s
	}
	return states, nil
}

func (f *fake) Explain(context.Context, string, []byte) string { return "line 1 is bad" }

func (f *fake) DaemonReload(context.Context) error {
	return f.effect("daemon-reload", "", func() {
		f.loaded = map[string]string{}
		entries, err := os.ReadDir(f.dir)
		if err != nil {
			panic(err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".") {
				f.loaded[e.Name()], _ = f.disk(e.Name())
			}
		}
	})
}

func (f *fake) Enable(_ context.Context, unit string) (changed bool, err error) {
	return !f.enabled[unit], f.effect("enable", unit, func() { f.enabled[unit] = true })
}

func (f *fake) Disable(_ context.Context, unit string) (changed bool, err error) {
	return f.enabled[unit], f.effect("disable", unit, func() { delete(f.enabled, unit) })
}

func (f *fake) run(unit string) {
	f.starts++
	f.running[unit] = f.starts
	env, _ := os.ReadFile(f.envFile)
	f.read[unit] = string(env)
}

func (f *fake) Start(_ context.Context, unit string) error {
	return f.effect("start", unit, func() {
		if f.running[unit] == 0 {
			f.run(unit)
		}
	})
}

func (f *fake) Stop(_ context.Context, unit string) error {
	return f.effect("stop", unit, func() { delete(f.running, unit) })
}

func (f *fake) Restart(_ context.Context, unit string) error {
	return f.effect("restart", unit, func() { f.restarts[unit]++; f.run(unit) })
}

func (f *fake) Reload(_ context.Context, unit string) error {
	return f.effect("reload", unit, func() { f.reloads[unit]++ })
}

func (f *fake) ResetFailed(context.Context, string) error { return nil }

func (f *fake) Stage(_ context.Context, p task.Package) error {
	return f.effect("stage", p.Name, func() {
		if f.staged[p.Name] == nil {
			f.staged[p.Name] = map[string]bool{}
		}
		f.staged[p.Name][p.Digest] = true
	})
}

func (f *fake) Activate(name, digest string) error {
	return f.effect("activate", name, func() { f.current[name] = digest })
}

func (f *fake) Remove(name string) error {
	return f.effect("remove", name, func() { delete(f.current, name); delete(f.staged, name) })
}

func (f *fake) State(name string) (host.PackageState, error) {
	return host.PackageState{Current: f.current[name], Versions: maps.Clone(f.staged[name])}, nil
}

// unreachable is how systemd's adapter says that it doesn't know what happened.
func unreachable() error {
	return &host.Error{Component: "systemd", Reason: v1.ReasonSystemdMissing, Retry: true, Err: errors.New("gone")}
}
