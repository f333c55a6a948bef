package systemd_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/systemd"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

const sleeper = "gpuaas-sleeper.service"

const sleeperUnit = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n"

func connect(t *testing.T) (*harness.Manager, *systemd.Client) {
	t.Helper()
	m := harness.NewManager(t)
	c := systemd.New(config(m))
	t.Cleanup(c.Close)
	return m, c
}

func config(m *harness.Manager) systemd.Config {
	return systemd.Config{Scope: systemd.User, RuntimeDir: m.RuntimeDir, JobTimeout: 20 * time.Second}
}

func TestLifeOfAUnit(t *testing.T) {
	m, c := connect(t)
	ctx := t.Context()
	if got := state(t, c, sleeper); got.LoadState != "not-found" {
		t.Fatalf("before: %+v", got)
	}
	writeUnit(t, m, sleeper, sleeperUnit)
	check(t, c.DaemonReload(ctx))
	got := state(t, c, sleeper)
	if got.LoadState != "loaded" || got.ActiveState != "inactive" || got.UnitFileState != "disabled" ||
		got.Fragment != filepath.Join(m.UnitDir(), sleeper) || got.NeedDaemonReload || got.Active() || got.Enabled() ||
		got.ServiceType != "simple" || got.Result != "success" {
		t.Fatalf("installed: %+v", got)
	}
	changed, err := c.Enable(ctx, sleeper)
	check(t, err)
	if !changed {
		t.Error("enabling changed nothing")
	}
	if changed, err = c.Enable(ctx, sleeper); err != nil || changed {
		t.Errorf("enabling again: changed %v, %v", changed, err)
	}
	check(t, c.Start(ctx, sleeper))
	first := state(t, c, sleeper)
	if !first.Active() || !first.Enabled() || first.MainPID == 0 || len(first.InvocationID) != 32 {
		t.Fatalf("started: %+v", first)
	}
	check(t, c.Start(ctx, sleeper))
	if again := state(t, c, sleeper); again.InvocationID != first.InvocationID {
		t.Error("starting a running unit started it anew")
	}
	check(t, c.Restart(ctx, sleeper))
	if again := state(t, c, sleeper); again.InvocationID == first.InvocationID || again.MainPID == first.MainPID {
		t.Errorf("not restarted: %+v", again)
	}
	check(t, c.Stop(ctx, sleeper))
	check(t, c.Stop(ctx, sleeper))
	changed, err = c.Disable(ctx, sleeper)
	check(t, err)
	if !changed {
		t.Error("disabling changed nothing")
	}
	if got := state(t, c, sleeper); got.Active() || got.Enabled() {
		t.Errorf("stopped: %+v", got)
	}
	check(t, os.Remove(filepath.Join(m.UnitDir(), sleeper)))
	check(t, c.DaemonReload(ctx))
	if got := state(t, c, sleeper); got.LoadState != "not-found" {
		t.Errorf("after: %+v", got)
	}
	check(t, c.Stop(ctx, sleeper))
	if _, err := c.Disable(ctx, sleeper); err != nil {
		t.Error(err)
	}
	check(t, c.ResetFailed(ctx, sleeper))
}

// Every error names the unit, its reason, and where to look or what to do.
func TestWhatCannotBeDone(t *testing.T) {
	m, c := connect(t)
	ctx := t.Context()
	writeUnit(t, m, "gpuaas-absent.service", "[Service]\nType=exec\nExecStart=/nonexistent/program\n")
	writeUnit(t, m, "gpuaas-false.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
	writeUnit(t, m, "gpuaas-bad.service", "[Service]\nType=nonsense\n")
	writeUnit(t, m, "gpuaas-target.target", "[Unit]\nDescription=x\n")
	writeUnit(t, m, sleeper, sleeperUnit)
	check(t, os.Symlink("/dev/null", filepath.Join(m.UnitDir(), "gpuaas-masked.service")))
	check(t, c.DaemonReload(ctx))
	enable := func(ctx context.Context, unit string) error { _, err := c.Enable(ctx, unit); return err }
	for _, test := range []struct {
		name   string
		do     func(context.Context, string) error
		unit   string
		reason v1.Reason
		words  []string
	}{
		{"program that isn't there", c.Start, "gpuaas-absent.service", v1.ReasonJobFailed,
			[]string{"result exit-code", "status 203", "ExecStart=", "journalctl --user -u gpuaas-absent.service"}},
		{"program that fails", c.Start, "gpuaas-false.service", v1.ReasonJobFailed, []string{"status 1", "failed"}},
		{"unit that can't be loaded", c.Start, "gpuaas-bad.service", v1.ReasonUnitInvalid, []string{"bad unit file setting", "systemctl --user status"}},
		{"no such unit", c.Restart, "gpuaas-nothing.service", v1.ReasonUnitInvalid, []string{"not found", "install"}},
		{"start of a masked unit", c.Start, "gpuaas-masked.service", v1.ReasonJobFailed, []string{"masked", "systemctl --user unmask gpuaas-masked.service"}},
		{"enabling a masked unit", enable, "gpuaas-masked.service", v1.ReasonJobFailed, []string{"masked", "unmask"}},
		{"enabling without [Install]", enable, "gpuaas-target.target", v1.ReasonUnitInvalid, []string{"[Install]", "WantedBy="}},
		{"reload of what doesn't run", c.Reload, sleeper, v1.ReasonJobFailed, []string{"reload"}},
		{"invalid name", c.Start, "no good name", v1.ReasonJobFailed, []string{"not valid"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.do(ctx, test.unit)
			var e *host.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if e.Component != "systemd" || e.Element != "unit/"+test.unit || e.Reason != test.reason {
				t.Errorf("got %+v", e)
			}
			for _, w := range test.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q misses %q", err, w)
				}
			}
		})
	}
	if got := state(t, c, "gpuaas-bad.service"); got.LoadState != "bad-setting" {
		t.Errorf("bad unit: %+v", got)
	}
	if got := state(t, c, "gpuaas-masked.service"); got.LoadState != "masked" || got.UnitFileState != "masked" {
		t.Errorf("masked unit: %+v", got)
	}
	if words, err := c.LoadError(ctx, "gpuaas-bad.service"); err != nil || !strings.Contains(words, "bad unit file setting") {
		t.Errorf("load error: %q, %v", words, err)
	}
	for content, want := range map[string]string{
		"[Service]\nType=nonsense\n": "gpuaas-bad.service:2: ",
		"[Service]\nType=oneshot\n":  "gpuaas-bad.service: ",
	} {
		if words := c.Explain(ctx, "gpuaas-bad.service", []byte(content)); !strings.HasPrefix(words, want) || !strings.Contains(words, "ExecStart=") {
			t.Errorf("explained: %q", words)
		}
	}
	if words, err := c.LoadError(ctx, sleeper); err != nil || words != "" {
		t.Errorf("load error of a good unit: %q, %v", words, err)
	}
}

func TestJobThatTakesTooLong(t *testing.T) {
	m, _ := connect(t)
	cfg := config(m)
	cfg.JobTimeout = 300 * time.Millisecond
	c := systemd.New(cfg)
	t.Cleanup(c.Close)
	writeUnit(t, m, "gpuaas-slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n")
	err := c.Start(t.Context(), "gpuaas-slow.service")
	if err == nil || !strings.Contains(err.Error(), "did not end within 300ms; it is activating") {
		t.Errorf("got %v", err)
	}
	// The answer that nobody waits for must not block those to come.
	check(t, c.Stop(t.Context(), "gpuaas-slow.service"))
	writeUnit(t, m, sleeper, sleeperUnit)
	check(t, c.Start(t.Context(), sleeper))
}

func TestUnitsOfEveryKind(t *testing.T) {
	m, c := connect(t)
	writeUnit(t, m, "gpuaas-t.service", "[Service]\nType=oneshot\nExecStart=/bin/true\n")
	writeUnit(t, m, "gpuaas-t.timer", "[Timer]\nOnActiveSec=1h\n")
	writeUnit(t, m, "gpuaas-s.socket", "[Socket]\nListenStream=%t/gpuaas-s\nService=gpuaas-t.service\n")
	writeUnit(t, m, "gpuaas-p.path", "[Path]\nPathExists=/nonexistent\nUnit=gpuaas-t.service\n")
	writeUnit(t, m, "gpuaas-g.target", "[Unit]\nDescription=x\n")
	check(t, c.DaemonReload(t.Context()))
	want := map[string]string{"gpuaas-t.timer": "waiting", "gpuaas-s.socket": "listening", "gpuaas-p.path": "waiting", "gpuaas-g.target": "active", "gpuaas-t.service": "dead"}
	var names []string
	for name := range want {
		names = append(names, name)
		check(t, c.Start(t.Context(), name))
	}
	states, err := c.Units(t.Context(), append(names, "gpuaas-none.service"))
	check(t, err)
	for name, sub := range want {
		got := states[name]
		if got.LoadState != "loaded" || got.SubState != sub || (name == "gpuaas-t.service" && (got.Result != "success" || got.ServiceType != "oneshot")) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := states["gpuaas-none.service"]; got.LoadState != "not-found" {
		t.Errorf("none: %+v", got)
	}
}

func TestReconnectAfterReexec(t *testing.T) {
	m, c := connect(t)
	writeUnit(t, m, sleeper, sleeperUnit)
	check(t, c.Start(t.Context(), sleeper))
	before := state(t, c, sleeper)
	w := systemd.NewWatch(t.Context(), config(m), slog.New(slog.DiscardHandler))
	w.Set([]string{sleeper})
	expect(t, w, "")
	if _, err := m.Systemctl("daemon-reexec"); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "")
	if after := state(t, c, sleeper); after.InvocationID != before.InvocationID || !after.Active() {
		t.Errorf("before %+v, after %+v", before, after)
	}
	check(t, c.Restart(t.Context(), sleeper))
	expect(t, w, sleeper)
}

func TestManagerDies(t *testing.T) {
	m, c := connect(t)
	check(t, c.Ping(t.Context()))
	check(t, m.Kill())
	for name, err := range map[string]error{
		"ping": c.Ping(t.Context()), "start": c.Start(t.Context(), sleeper), "reload": c.DaemonReload(t.Context()),
		"units": func() error { _, err := c.Units(t.Context(), []string{sleeper}); return err }(),
	} {
		var e *host.Error
		if !errors.As(err, &e) || e.Reason != v1.ReasonSystemdMissing || !e.Retry || !errors.Is(err, systemd.ErrUnreachable) ||
			!strings.Contains(err.Error(), "enable-linger") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A restart that is under way when the manager goes away must end in an error
// that leaves open what happened, not in silence.
func TestManagerDiesDuringJob(t *testing.T) {
	m, c := connect(t)
	writeUnit(t, m, "gpuaas-slow.service", "[Service]\nType=oneshot\nExecStart=/bin/sleep 1000\n")
	done := make(chan error, 1)
	go func() { done <- c.Restart(t.Context(), "gpuaas-slow.service") }()
	waitFor(t, "the job to run", func() bool { return state(t, c, "gpuaas-slow.service").ActiveState == "activating" })
	check(t, m.Kill())
	select {
	case err := <-done:
		if !errors.Is(err, systemd.ErrUnreachable) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("still waiting for the answer of a dead manager")
	}
}

func TestWatch(t *testing.T) {
	m, c := connect(t)
	writeUnit(t, m, sleeper, sleeperUnit)
	writeUnit(t, m, "gpuaas-other.service", sleeperUnit)
	w := systemd.NewWatch(t.Context(), config(m), slog.New(slog.DiscardHandler))
	expect(t, w, "")
	w.Set([]string{sleeper})
	// By hand: what somebody does beside the agent.
	byHand := func(args ...string) {
		t.Helper()
		if _, err := m.Systemctl(args...); err != nil {
			t.Fatal(err)
		}
	}
	byHand("start", "gpuaas-other.service", sleeper)
	expect(t, w, sleeper)
	byHand("stop", sleeper)
	expect(t, w, sleeper)
	byHand("daemon-reload")
	expect(t, w, "")
	// systemctl itself would make the links without asking a manager that is
	// hidden in a mount namespace.
	if _, err := c.Enable(t.Context(), sleeper); err != nil {
		t.Fatal(err)
	}
	expect(t, w, "")
	// Looking must not look like a change, or looking would never end.
	for range 5 {
		state(t, c, sleeper)
		state(t, c, "gpuaas-none.service")
	}
	byHand("stop", "gpuaas-other.service")
	select {
	case got := <-w.Events():
		t.Errorf("looking at units, and another unit, gave the event %v", got)
	case <-time.After(300 * time.Millisecond):
	}
}

// expect waits for an event about a unit, or about everything where unit is "".
func expect(t *testing.T, w *systemd.Watch, unit string) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case got := <-w.Events():
			if unit == "" && len(got) == 0 || unit != "" && slices.Contains(got, unit) {
				// What belongs to it may come in pieces.
				for {
					select {
					case <-w.Events():
						continue
					case <-time.After(200 * time.Millisecond):
						return
					}
				}
			}
		case <-deadline:
			t.Fatalf("no event for %q", unit)
		}
	}
}

func state(t *testing.T, c *systemd.Client, unit string) host.UnitState {
	t.Helper()
	states, err := c.Units(t.Context(), []string{unit})
	if err != nil {
		t.Fatal(err)
	}
	return states[unit]
}

func writeUnit(t testing.TB, m *harness.Manager, name, content string) {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(m.UnitDir(), name), []byte(content), 0o600))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ready(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}
