package apply_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/agent/internal/systemd"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

// real is one node with a real manager.
type real struct {
	*harness.Manager
	client *systemd.Client
	apply  *apply.Applier
	look   observe.Observer
	inv    host.Inventory
	files  string
	steps  []host.Step // of the last pass
}

func newReal(t *testing.T) *real {
	t.Helper()
	m := harness.NewManager(t)
	r := &real{Manager: m, inv: host.NewInventory(), files: t.TempDir(),
		client: systemd.New(systemd.Config{Scope: systemd.User, RuntimeDir: m.RuntimeDir, JobTimeout: 20 * time.Second})}
	t.Cleanup(r.client.Close)
	packages := newFake(t)
	r.apply = &apply.Applier{Systemd: r.client, Packages: packages, UnitDir: m.UnitDir(), FileRoots: []string{r.files}, Now: time.Now}
	r.look = observe.Observer{Units: r.client, Packages: packages, UnitDir: m.UnitDir()}
	return r
}

func (r *real) plan(t *testing.T, resources []task.Resource) plan.Plan {
	t.Helper()
	observed, err := r.look.Observe(t.Context(), resources, r.inv)
	check(t, err)
	return plan.Compute(plan.Input{Resources: resources, Observed: observed, Inventory: r.inv, UnitDir: r.UnitDir()})
}

// pass makes the host as resources want it, once.
func (r *real) pass(t *testing.T, resources []task.Resource) error {
	t.Helper()
	p := r.plan(t, resources)
	check(t, p.Err())
	r.steps = p.Steps
	return r.apply.Run(t.Context(), p.Steps, &r.inv, func(host.Inventory) error { return nil }, func(apply.Record) {})
}

// reach passes, and wants nothing left to do after it.
func (r *real) reach(t *testing.T, resources []task.Resource) {
	t.Helper()
	check(t, r.pass(t, resources))
	if p := r.plan(t, resources); !p.Converged() {
		t.Fatalf("one pass was not enough: %+v", p)
	}
}

func (r *real) did(a host.Action) int {
	n := 0
	for _, s := range r.steps {
		if s.Action == a {
			n++
		}
	}
	return n
}

func (r *real) state(t *testing.T, unit string) host.UnitState {
	t.Helper()
	states, err := r.client.Units(t.Context(), []string{unit})
	check(t, err)
	return states[unit]
}

const svc = "gpuaas-svc.service"

func (r *real) service(env string) []task.Resource {
	yes := true
	file := filepath.Join(r.files, "svc.env")
	return []task.Resource{
		task.File{Path: file, Content: []byte(env), Mode: 0o600, Source: "env"},
		task.Unit{Name: svc, Source: "unit", Content: []byte("[Service]\nEnvironmentFile=" + file +
			"\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n")},
		task.Service{Unit: svc, State: task.Running, Enabled: &yes, Source: "svc", RestartOn: []string{"file/" + file, "unit/" + svc}},
	}
}

// The whole life of a service, on a real manager, judged by systemctl and the
// service's own process.
func TestRealLife(t *testing.T) {
	r := newReal(t)
	r.reach(t, r.service("A=1\n"))
	first := r.state(t, svc)
	if got := environ(t, first.MainPID)["A"]; got != "1" {
		t.Errorf("A is %q", got)
	}
	if out, err := r.Systemctl("is-enabled", svc); err != nil || out != "enabled" {
		t.Errorf("is-enabled: %q, %v", out, err)
	}
	if out, err := r.Systemctl("list-dependencies", "--plain", "default.target"); err != nil || !strings.Contains(out, svc) {
		t.Errorf("the manager doesn't know that the unit is wanted: %q, %v", out, err)
	}
	check(t, r.pass(t, r.service("A=1\n")))
	if len(r.steps) != 0 {
		t.Errorf("nothing to do, but %+v", r.steps)
	}

	// One restart for a new value, none after it.
	r.reach(t, r.service("A=2\n"))
	second := r.state(t, svc)
	if environ(t, second.MainPID)["A"] != "2" || r.did(host.RestartService) != 1 || r.did(host.DaemonReload) != 0 {
		t.Errorf("environment %v, steps %+v", environ(t, second.MainPID), r.steps)
	}
	if again := r.state(t, svc); again.InvocationID != second.InvocationID {
		t.Error("restarted twice")
	}

	// Drift: a file edited by hand, a service stopped by hand, a unit disabled by hand.
	check(t, os.WriteFile(filepath.Join(r.files, "svc.env"), []byte("A=hacked\n"), 0o666))
	r.reach(t, r.service("A=2\n"))
	if r.did(host.WriteFile) != 1 || read(t, filepath.Join(r.files, "svc.env")) != "A=2\n" {
		t.Errorf("steps %+v", r.steps)
	}
	if _, err := r.Systemctl("stop", svc); err != nil {
		t.Fatal(err)
	}
	r.reach(t, r.service("A=2\n"))
	if !r.state(t, svc).Active() || r.did(host.StartService) != 1 {
		t.Errorf("steps %+v", r.steps)
	}
	if _, err := r.client.Disable(t.Context(), svc); err != nil {
		t.Fatal(err)
	}
	r.reach(t, r.service("A=2\n"))
	if !r.state(t, svc).Enabled() {
		t.Errorf("steps %+v", r.steps)
	}

	r.reach(t, nil)
	left, err := os.ReadDir(r.UnitDir())
	check(t, err)
	for _, e := range left {
		// systemd leaves the empty folder of links that it made.
		if !e.IsDir() {
			t.Errorf("left: %s", e.Name())
		}
	}
	if s := r.state(t, svc); s.LoadState != "not-found" || s.ActiveState != "inactive" {
		t.Errorf("left: %+v", s)
	}
	if len(r.inv.Services)+len(r.inv.Units)+len(r.inv.Files) > 0 {
		t.Errorf("inventory %+v", r.inv)
	}
}

// More changes in a row than systemd lets a unit restart by itself.
func TestRealManyRestarts(t *testing.T) {
	r := newReal(t)
	for i := range 12 {
		r.reach(t, r.service(fmt.Sprintf("A=%d\n", i)))
	}
	if got := environ(t, r.state(t, svc).MainPID)["A"]; got != "11" {
		t.Errorf("A is %q", got)
	}
}

func TestRealBadUnit(t *testing.T) {
	r := newReal(t)
	good := r.service("A=1\n")
	r.reach(t, good)
	before := r.state(t, svc)
	content := read(t, filepath.Join(r.UnitDir(), svc))
	bad := slices.Clone(good)
	bad[1] = task.Unit{Name: svc, Source: "unit", Content: []byte("[Service]\nType=forking\n")}
	bad[2] = task.Service{Unit: svc, State: task.Running, Source: "svc", RestartOn: []string{"unit/" + svc}}
	err := r.pass(t, bad)
	e := host.AsError(err)
	if err == nil || e.Reason != v1.ReasonUnitInvalid || e.Element != "unit/"+svc || !strings.Contains(err.Error(), "ExecStart=") {
		t.Fatalf("got %v", err)
	}
	after := r.state(t, svc)
	if after.InvocationID != before.InvocationID || after.LoadState != "loaded" || after.NeedDaemonReload ||
		read(t, filepath.Join(r.UnitDir(), svc)) != content {
		t.Errorf("before %+v, after %+v", before, after)
	}
	r.reach(t, good)
	if got := r.state(t, svc); got.InvocationID != before.InvocationID && r.did(host.RestartService) == 0 {
		t.Errorf("got %+v", got)
	}
}

// Somebody else's unit of the same name, in a folder that systemd prefers or
// not, and masks: nothing is overwritten, nothing half done.
func TestRealForeignUnits(t *testing.T) {
	r := newReal(t)
	foreign := filepath.Join(r.DataDir, "systemd", "user")
	check(t, os.MkdirAll(foreign, 0o700))
	check(t, os.WriteFile(filepath.Join(foreign, svc), []byte("[Service]\nExecStart=/bin/sleep 2000\n"), 0o600))
	check(t, r.client.DaemonReload(t.Context()))
	if got := r.state(t, svc); got.Fragment != filepath.Join(foreign, svc) {
		t.Errorf("got %+v", got)
	}
	if p := r.plan(t, r.service("A=1\n")); len(p.Conflicts) == 0 {
		t.Error("no conflict with a unit of somebody else")
	}
	preferred := filepath.Join(r.ConfigDir, "systemd", "user.control")
	check(t, os.MkdirAll(preferred, 0o700))
	check(t, os.WriteFile(filepath.Join(preferred, "gpuaas-x.service"), []byte("[Service]\nExecStart=/bin/sleep 2000\n"), 0o600))
	check(t, r.client.DaemonReload(t.Context()))
	// The planner sees that too; here it came between planning and applying.
	err := r.apply.Run(t.Context(), []host.Step{unit("gpuaas-x.service", "[Service]\nExecStart=/bin/sleep 1\n"), reload},
		&r.inv, func(host.Inventory) error { return nil }, func(apply.Record) {})
	if e := host.AsError(err); err == nil || e.Reason != v1.ReasonConflict || !strings.Contains(err.Error(), preferred) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(r.UnitDir(), "gpuaas-x.service")); err == nil {
		t.Error("the hidden unit file was left")
	}
}

// systemd reads back exactly what the manifest says, whatever it holds.
func TestRealEnvironmentFile(t *testing.T) {
	r := newReal(t)
	values := task.Env{
		"PLAIN": "127.0.0.1:9100", "EMPTY": "", "SPACES": "  two  words ", "DOUBLE": `say "hi"`, "SINGLE": "it's",
		"DOLLAR": "$HOME ${HOME} $$ $(id)", "BACKSLASH": `C:\new\table\\end\`, "BACKTICK": "`id`", "NEWLINE": "one\ntwo\n\nthree\n",
		"CRLF": "a\r\nb", "TAB": "\ta\tb\t", "HASH": "# not a comment", "SEMICOLON": "; nor this", "UTF8": "grüße 日本語 🚀",
		"PERCENT": "%h %n %%", "EQUALS": "a=b=c", "JSON": `{"a": ["b", "c\n"], "d": "\\"}`, "GLOB": "*?[a]~", "BANG": "!x&|<>()", "QUOTES": `'"'"'`,
		"NBSP": "a\u00a0b", "LEADING_QUOTE": `"x`, "TRAILING_BACKSLASH": `x\`, "ONLY_NEWLINE": "\n", "BOM": "\ufeffx",
		"LONG": strings.Repeat("0123456789 ", 1000),
	}
	resources := r.service(string(values.Render("env")))
	r.reach(t, resources)
	got := environ(t, r.state(t, svc).MainPID)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if value, there := got[name]; !there || value != values[name] {
			t.Errorf("%s: got %q (there: %v), want %q", name, value, there, values[name])
		}
	}
}

// environ is the environment of a process. Until the service's own program
// runs, systemd's helper is seen.
func environ(t *testing.T, pid uint32) map[string]string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if err == nil && string(name) == "sleep\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("process %d is %q, %v", pid, name, err)
		}
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	check(t, err)
	found := map[string]string{}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		name, value, _ := strings.Cut(string(entry), "=")
		found[name] = value
	}
	return found
}

// The time from a changed value to the restarted service, for the record.
func BenchmarkRealRestart(b *testing.B) {
	m := harness.NewManager(b)
	client := systemd.New(systemd.Config{Scope: systemd.User, RuntimeDir: m.RuntimeDir})
	b.Cleanup(client.Close)
	files := b.TempDir()
	a := &apply.Applier{Systemd: client, UnitDir: m.UnitDir(), FileRoots: []string{files}, Now: time.Now}
	inv := host.NewInventory()
	run := func(steps ...host.Step) {
		if err := a.Run(context.Background(), steps, &inv, func(host.Inventory) error { return nil }, func(apply.Record) {}); err != nil {
			b.Fatal(err)
		}
	}
	run(unit(svc, "[Service]\nExecStart=/bin/sleep 1000\n"), reload)
	n := 0
	for b.Loop() {
		n++
		run(write(task.File{Path: filepath.Join(files, "env"), Content: []byte(fmt.Sprint(n)), Mode: 0o600}),
			host.Step{Action: host.RestartService, Ref: "service/" + svc, Name: svc, Inputs: fmt.Sprint(n)})
	}
}
