package plan_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	v1 "github.com/gpuaas/node-agent/schema/v1"

	"github.com/gpuaas/node-agent/schema/task"
)

const (
	envPath = "/etc/gpuaas/x.env"
	unitX   = "gpuaas-x.service"
)

func env(content string) task.File {
	return task.File{Path: envPath, Content: []byte(content), Mode: 0o640, Source: "x-env"}
}

func pkgX(digest string) task.Package {
	return task.Package{Name: "x", Repository: "registry/x", Digest: digest, Activate: true}
}

func unit() task.Unit {
	return task.Unit{Name: unitX, Content: []byte(unitText("x")), Source: "x-unit"}
}

func service() task.Service {
	on := true
	return task.Service{Unit: unitX, State: task.Running, Enabled: &on, Source: "x",
		RestartOn: []string{"package/x", "file/" + envPath, "unit/" + unitX}}
}

func manifest(env, digest string) []task.Resource {
	return []task.Resource{
		pkgX(digest), task.File{Path: envPath, Content: []byte(env), Mode: 0o640, Source: "x-env"}, unit(), service(),
	}
}

// Each case begins with a host that converged to manifest("a", dgA) unless
// fresh is set, changes it, and shows the whole plan for want.
func TestCompute(t *testing.T) {
	stopped, off := service(), service()
	stopped.State, stopped.RestartOn = task.Stopped, nil
	no := false
	off.Enabled = &no
	action := task.Service{Unit: unitX, Action: task.Reload, Source: "reload-1"}
	fromPackage := task.Unit{Name: unitX, Package: "x", File: "systemd/x.service", Source: "x-unit"}
	foreign := task.Service{Unit: "gpuaas-theirs.service", State: task.Running, Source: "theirs"}
	with := func(r ...task.Resource) []task.Resource { return r }

	tests := []struct {
		name   string
		fresh  bool
		change func(*sim)
		want   []task.Resource
		plan   string
	}{
		{name: "nothing to do", want: manifest("a", dgA), plan: ""},
		{name: "a fresh node", fresh: true, want: manifest("a", dgA), plan: `
stage package/x: version sha256:aaaaaaaaaaaa is not on the node yet
write file//etc/gpuaas/x.env: does not exist
write-unit unit/gpuaas-x.service: does not exist
activate package/x: no version is active
daemon-reload : unit files change: gpuaas-x.service
enable service/gpuaas-x.service: does not start at boot, wanted enabled: true
start service/gpuaas-x.service: does not run, wanted running
`},
		{name: "a fresh node whose unit is in a package", fresh: true, want: with(pkgX(dgA), fromPackage, service()), plan: `
stage package/x: version sha256:aaaaaaaaaaaa is not on the node yet
write-unit unit/gpuaas-x.service: content comes from package x (systemd/x.service), not fetched yet
activate package/x: no version is active
daemon-reload : unit files change: gpuaas-x.service
enable service/gpuaas-x.service: does not start at boot, wanted enabled: true
start service/gpuaas-x.service: does not run, wanted running
`},
		{name: "an update whose unit is in a package", want: with(pkgX(dgB), env("a"), fromPackage, service()), plan: `
stage package/x: version sha256:bbbbbbbbbbbb is not on the node yet
write-unit unit/gpuaas-x.service: content comes from package x (systemd/x.service), not fetched yet
activate package/x: active is sha256:aaaaaaaaaaaa, wanted sha256:bbbbbbbbbbbb
daemon-reload : unit files change: gpuaas-x.service
restart service/gpuaas-x.service: may need it: the content of gpuaas-x.service comes from package x, not read yet
`},
		{name: "a changed value", want: manifest("b", dgA), plan: `
write file//etc/gpuaas/x.env: content differs
restart service/gpuaas-x.service: changes: /etc/gpuaas/x.env
`},
		{name: "a new version", want: manifest("a", dgB), plan: `
stage package/x: version sha256:bbbbbbbbbbbb is not on the node yet
activate package/x: active is sha256:aaaaaaaaaaaa, wanted sha256:bbbbbbbbbbbb
restart service/gpuaas-x.service: changes: x
`},
		{name: "a changed mode in the manifest is no drift",
			want: with(pkgX(dgA), task.File{Path: envPath, Content: []byte("a"), Mode: 0o600}, unit(), service()), plan: `
write file//etc/gpuaas/x.env: mode is 0640, wanted 0600
restart service/gpuaas-x.service: changes: /etc/gpuaas/x.env
`},
		{name: "a file edited by hand is repaired without a restart", want: manifest("a", dgA),
			change: func(s *sim) { s.files[envPath] = regular("edited", 0o666, "bob") }, plan: `
write file//etc/gpuaas/x.env: content differs, mode is 0666, wanted 0640, owner is bob, wanted root [drift]
`},
		{name: "a removed file", want: manifest("a", dgA),
			change: func(s *sim) { delete(s.files, envPath) }, plan: `
write file//etc/gpuaas/x.env: was removed [drift]
`},
		{name: "a file replaced by a symlink", want: manifest("a", dgA),
			change: func(s *sim) { s.files[envPath] = host.FileState{Exists: true, Kind: "symlink"} }, plan: `
write file//etc/gpuaas/x.env: was replaced by a symlink [drift]
`},
		{name: "a folder in the file's place", want: manifest("a", dgA),
			change: func(s *sim) { s.files[envPath] = host.FileState{Exists: true, Kind: "dir"} }, plan: `
CONFLICT file//etc/gpuaas/x.env: a folder is in its place; move it away
`},
		{name: "a file that can't be read", want: manifest("a", dgA),
			change: func(s *sim) { s.files[envPath] = host.FileState{Err: "input/output error"} }, plan: `
CONFLICT file//etc/gpuaas/x.env: cannot be looked at: input/output error
`},
		{name: "somebody else's file", fresh: true, want: with(env("a")),
			change: func(s *sim) { s.files[envPath] = regular("theirs", 0o640, "") }, plan: `
CONFLICT file//etc/gpuaas/x.env: exists and is not the agent's (content differs); set adopt: true on the task to let the agent replace it, or move it away
`},
		{name: "somebody else's file, adopted", fresh: true,
			want:   with(task.File{Path: envPath, Content: []byte("a"), Mode: 0o640, Adopt: true}),
			change: func(s *sim) { s.files[envPath] = regular("theirs", 0o640, "") }, plan: `
write file//etc/gpuaas/x.env: is taken over, as the task says adopt: true (content differs)
`},
		{name: "somebody else's file that is as wanted", fresh: true, want: with(env("a")),
			change: func(s *sim) { s.files[envPath] = regular("a", 0o640, "") }, plan: `
write file//etc/gpuaas/x.env: is as wanted already; becomes the agent's
`},
		{name: "a lost inventory finds everything again", want: manifest("a", dgA),
			change: func(s *sim) { s.inv = host.NewInventory() }, plan: `
write file//etc/gpuaas/x.env: is as wanted already; becomes the agent's
write-unit unit/gpuaas-x.service: is as wanted already; becomes the agent's
activate package/x: is active already; recorded anew
daemon-reload : unit files change: gpuaas-x.service
restart service/gpuaas-x.service: runs, but the agent did not start it: it may run with something old
`},
		{name: "an owner by number", fresh: true,
			want:   with(task.File{Path: envPath, Content: []byte("a"), Mode: 0o640, Owner: "0", Group: "7", Adopt: true}),
			change: func(s *sim) { s.files[envPath] = regular("a", 0o640, "") }, plan: `
write file//etc/gpuaas/x.env: is taken over, as the task says adopt: true (group is root, wanted 7)
`},
		{name: "a service stopped by hand", want: manifest("a", dgA),
			change: func(s *sim) { delete(s.active, unitX) }, plan: `
start service/gpuaas-x.service: does not run, wanted running [drift]
`},
		{name: "a service disabled by hand", want: manifest("a", dgA),
			change: func(s *sim) { delete(s.enabled, unitX) }, plan: `
enable service/gpuaas-x.service: does not start at boot, wanted enabled: true [drift]
`},
		{name: "a unit edited by hand", want: manifest("a", dgA),
			change: func(s *sim) { s.units[unitX] = regular("edited", 0o644, "") }, plan: `
write-unit unit/gpuaas-x.service: content differs [drift]
daemon-reload : unit files change: gpuaas-x.service
enable service/gpuaas-x.service: its unit file changes, and with it perhaps its [Install] section
`},
		{name: "a unit masked by hand", want: manifest("a", dgA),
			change: func(s *sim) { s.units[unitX] = host.FileState{Exists: true, Kind: "symlink"} }, plan: `
write-unit unit/gpuaas-x.service: was replaced by a symlink [drift]
daemon-reload : unit files change: gpuaas-x.service
enable service/gpuaas-x.service: does not start at boot, wanted enabled: true [drift]
`},
		{name: "a unit that systemd read before it was repaired", want: manifest("a", dgA),
			change: func(s *sim) { s.loaded[unitX] = digest("edited") }, plan: `
daemon-reload : systemd has not read the current unit files of gpuaas-x.service [drift]
`},
		{name: "somebody else's drop-in is told and left", want: manifest("a", dgA),
			change: func(s *sim) {
				s.dropIns[unitX] = []string{unitDir + "/" + unitX + ".d/10-theirs.conf", "/usr/lib/systemd/system/service.d/10-all.conf"}
			}, plan: `
NOTICE unit/gpuaas-x.service: drop-ins change this unit and are not the agent's: /etc/systemd/system/gpuaas-x.service.d/10-theirs.conf
`},
		{name: "somebody else's unit of that name", fresh: true, want: with(unit()),
			change: func(s *sim) { s.fragment[unitX] = "/usr/lib/systemd/system/" + unitX }, plan: `
CONFLICT unit/gpuaas-x.service: a unit of that name is installed as /usr/lib/systemd/system/gpuaas-x.service and is not the agent's; set adopt: true on the task to override it, or choose another name
`},
		{name: "a package version is gone", want: manifest("a", dgA),
			change: func(s *sim) { s.packages["x"] = host.PackageState{} }, plan: `
stage package/x: the installed version sha256:aaaaaaaaaaaa is gone [drift]
activate package/x: no version is active [drift]
`},
		{name: "the current link was swung by hand", want: manifest("a", dgA),
			change: func(s *sim) {
				s.packages["x"] = host.PackageState{Current: dgB, Versions: map[string]bool{dgA: true, dgB: true}}
			}, plan: `
activate package/x: active is sha256:bbbbbbbbbbbb, wanted sha256:aaaaaaaaaaaa [drift]
`},
		{name: "wanted stopped", want: with(pkgX(dgA), env("a"), unit(), stopped), plan: `
stop service/gpuaas-x.service: runs, wanted stopped
`},
		{name: "wanted disabled", want: with(pkgX(dgA), env("a"), unit(), off), plan: `
disable service/gpuaas-x.service: starts at boot, wanted enabled: false
`},
		{name: "a one-shot", want: append(manifest("a", dgA), action), plan: `
action action/reload-1: one-shot reload, not run on this node yet
`},
		{name: "a one-shot that ran", want: append(manifest("a", dgA), action),
			change: func(s *sim) { s.apply(s.plan(append(manifest("a", dgA), action)).Steps) }, plan: ""},
		{name: "everything leaves the manifest", want: nil, plan: `
stop service/gpuaas-x.service: no longer in the manifest
disable service/gpuaas-x.service: no longer in the manifest
remove-unit unit/gpuaas-x.service: no longer in the manifest
daemon-reload : unit files change: gpuaas-x.service
remove file//etc/gpuaas/x.env: no longer in the manifest
remove-package package/x: no longer in the manifest
forget service/gpuaas-x.service: no longer in the manifest
`},
		{name: "what left the manifest is gone already", want: with(unit(), service()),
			change: func(s *sim) { delete(s.files, envPath); delete(s.packages, "x") }, plan: `
restart service/gpuaas-x.service: what it depends on changed since it was started
forget file//etc/gpuaas/x.env: no longer in the manifest, and gone from the node already
forget package/x: no longer in the manifest, and gone from the node already
`},
		{name: "only the service leaves", want: with(pkgX(dgA), env("a"), unit()), plan: `
stop service/gpuaas-x.service: no longer in the manifest
disable service/gpuaas-x.service: no longer in the manifest
forget service/gpuaas-x.service: no longer in the manifest
`},
		{name: "the unit leaves under a service that stays", want: with(pkgX(dgA), env("a"), service()), plan: `
disable service/gpuaas-x.service: no longer in the manifest
remove-unit unit/gpuaas-x.service: no longer in the manifest
daemon-reload : unit files change: gpuaas-x.service
CONFLICT service/gpuaas-x.service: is still wanted, but the task that installs gpuaas-x.service left the manifest; remove both or none
`},
		{name: "a unit that nobody has", fresh: true, want: with(foreign), plan: `
CONFLICT service/gpuaas-theirs.service: there is no unit gpuaas-theirs.service on this node; add a task that installs it, or install it on the node
`},
		{name: "somebody else's unit that runs", fresh: true, want: with(foreign), change: func(s *sim) {
			s.fragment["gpuaas-theirs.service"], s.active["gpuaas-theirs.service"] = "/lib/systemd/system/gpuaas-theirs.service", true
		}, plan: `
accept service/gpuaas-theirs.service: runs already, and restartOn is empty
`},
		{name: "enabled without an install section", fresh: true,
			want: with(task.Unit{Name: unitX, Content: []byte("[Service]\nExecStart=/x\n")}, service()), plan: `
write-unit unit/gpuaas-x.service: does not exist
daemon-reload : unit files change: gpuaas-x.service
CONFLICT service/gpuaas-x.service: cannot be enabled: gpuaas-x.service has no WantedBy= or RequiredBy= in an [Install] section; add one, or drop enabled: true
`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newSim(t)
			if !test.fresh {
				s.converge(manifest("a", dgA))
			}
			if test.change != nil {
				test.change(s)
			}
			got := show(s.plan(test.want))
			if got != strings.TrimPrefix(test.plan, "\n") {
				t.Errorf("plan is\n%swanted%s", got, test.plan)
			}
		})
	}
}

// An interrupted restart is neither lost nor repeated.
func TestPendingRestart(t *testing.T) {
	begin := func(t *testing.T) (*sim, host.Step) {
		s := newSim(t)
		s.converge(manifest("a", dgA))
		p := s.plan(manifest("b", dgA))
		s.apply(p.Steps[:1])
		s.record(p.Steps[1])
		return s, p.Steps[1]
	}
	tests := []struct {
		name   string
		change func(*sim, host.Step)
		want   []task.Resource
		plan   string
	}{
		{"it did not happen", func(*sim, host.Step) {}, manifest("b", dgA),
			"restart service/gpuaas-x.service: the restart that was begun did not happen\n"},
		{"it happened", func(s *sim, step host.Step) { s.do(step) }, manifest("b", dgA),
			"accept service/gpuaas-x.service: was restarted already, before the agent was interrupted\n"},
		{"it happened, and the manifest moved on", func(s *sim, step host.Step) { s.do(step) }, manifest("c", dgA),
			"write file//etc/gpuaas/x.env: content differs\nrestart service/gpuaas-x.service: changes: /etc/gpuaas/x.env\n"},
		{"it happened, and the manifest went back", func(s *sim, step host.Step) { s.do(step) }, manifest("a", dgA),
			"write file//etc/gpuaas/x.env: content differs\nrestart service/gpuaas-x.service: changes: /etc/gpuaas/x.env\n"},
		{"it did not happen, and the manifest went back", func(*sim, host.Step) {}, manifest("a", dgA),
			"write file//etc/gpuaas/x.env: content differs\n" +
				"accept service/gpuaas-x.service: still runs with what is wanted; the restart that was begun is not needed any more\n"},
		{"the service stopped meanwhile", func(s *sim, _ host.Step) { delete(s.active, unitX) }, manifest("b", dgA),
			"start service/gpuaas-x.service: does not run, wanted running\n"},
		{"its input was edited meanwhile", func(s *sim, step host.Step) { s.do(step); s.files[envPath] = regular("x", 0o640, "") }, manifest("b", dgA),
			"write file//etc/gpuaas/x.env: content differs [drift]\n" +
				"restart service/gpuaas-x.service: the restart that was begun did not happen\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, step := begin(t)
			test.change(s, step)
			if got := show(s.plan(test.want)); got != test.plan {
				t.Errorf("plan is\n%swanted\n%s", got, test.plan)
			}
			s.converge(test.want)
		})
	}
}

// What nobody looked at must not be guessed at.
func TestUnobservedIsRefused(t *testing.T) {
	p := plan.Compute(plan.Input{Resources: manifest("a", dgA), Inventory: host.Inventory{
		Files: map[string]host.OwnedFile{"/etc/gpuaas/old": {}}, Units: map[string]host.OwnedUnit{"gpuaas-old.service": {}},
		Packages: map[string]host.OwnedPackage{"old": {}},
	}})
	if len(p.Steps) != 0 || len(p.Conflicts) != 7 {
		t.Errorf("plan is\n%s", show(p))
	}
}

func TestDuplicatesAreRefused(t *testing.T) {
	s := newSim(t)
	if p := s.plan([]task.Resource{env("a"), env("b")}); len(p.Conflicts) != 1 {
		t.Errorf("plan is\n%s", show(p))
	}
}

func TestErrSaysWhatStatusNeeds(t *testing.T) {
	s := newSim(t)
	s.files[envPath] = regular("theirs", 0o640, "")
	p := s.plan(manifest("a", dgA))
	var e *host.Error
	if err := p.Err(); !errors.As(err, &e) || e.Component != "plan" || e.Reason != v1.ReasonConflict || !e.Retry || e.Element != "file/"+envPath {
		t.Errorf("error is %#v", err)
	}
	if p.Converged() {
		t.Error("a plan with conflicts counts as converged")
	}
}

// Instances of a template take their file from it.
func TestTemplates(t *testing.T) {
	s := newSim(t)
	template := task.Unit{Name: "gpuaas-x@.service", Content: []byte(unitText("x"))}
	instance := task.Service{Unit: "gpuaas-x@1.service", State: task.Running, RestartOn: []string{"unit/gpuaas-x@.service"}}
	p := s.plan([]task.Resource{template, instance})
	const want = `write-unit unit/gpuaas-x@.service: does not exist
daemon-reload : unit files change: gpuaas-x@.service
start service/gpuaas-x@1.service: does not run, wanted running
`
	if got := show(p); got != want {
		t.Errorf("plan is\n%swanted\n%s", got, want)
	}
}

// A oneshot service runs once for what is wanted, and not at every look.
func TestOneshotRunsOncePerChange(t *testing.T) {
	const start = "start service/gpuaas-x.service: does not run, wanted running"
	for name, c := range map[string]struct {
		lines string
		state host.UnitState
		want  string
	}{
		"ended well":       {"", host.UnitState{ServiceType: "oneshot", Result: "success"}, ""},
		"failed":           {"", host.UnitState{ServiceType: "oneshot", ActiveState: "failed", Result: "exit-code"}, "start service/gpuaas-x.service: has failed (exit-code), wanted running [drift]\n"},
		"was to remain":    {"[Service]\nRemainAfterExit=yes\n", host.UnitState{ServiceType: "oneshot", Result: "success"}, start + " [drift]\n"},
		"is no oneshot":    {"", host.UnitState{ServiceType: "simple", Result: "success"}, start + " [drift]\n"},
		"what it reads":    {"", host.UnitState{ServiceType: "oneshot", Result: "success"}, "write file//etc/gpuaas/x.env: content differs\n" + start + "\n"},
		"stopped half way": {"", host.UnitState{ServiceType: "oneshot", Result: "signal"}, start + " [drift]\n"},
	} {
		s := newSim(t)
		unit := task.Unit{Name: "gpuaas-x.service", Content: []byte(unitText("x") + c.lines)}
		env := task.File{Path: "/etc/gpuaas/x.env", Content: []byte("A=1\n"), Mode: 0o640}
		m := []task.Resource{unit, env, task.Service{Unit: unit.Name, State: task.Running, RestartOn: []string{unit.Ref(), env.Ref()}}}
		s.converge(m)
		s.active[unit.Name] = false
		if name == "what it reads" {
			m[1] = task.File{Path: env.Path, Content: []byte("A=2\n"), Mode: env.Mode}
		}
		o := s.observe(m)
		state := o.Units[unit.Name]
		state.ServiceType, state.Result = c.state.ServiceType, c.state.Result
		if c.state.ActiveState != "" {
			state.ActiveState = c.state.ActiveState
		}
		o.Units[unit.Name] = state
		p := plan.Compute(plan.Input{Resources: m, Observed: o, Inventory: s.inv, Self: self, UnitDir: unitDir})
		if got := show(p); got != c.want {
			t.Errorf("%s: plan is\n%swanted\n%s", name, got, c.want)
		}
	}
}

// Sockets and timers go before the services that they start.
func TestTriggersFirst(t *testing.T) {
	s := newSim(t)
	var m []task.Resource
	for _, kind := range []string{"service", "socket", "timer"} {
		u := task.Unit{Name: "gpuaas-x." + kind, Content: []byte(unitText("x"))}
		m = append(m, u, task.Service{Unit: u.Name, State: task.Running})
	}
	order := func(p plan.Plan, action host.Action) string {
		var names []string
		for _, step := range p.Steps {
			if step.Action == action {
				names = append(names, step.Name)
			}
		}
		return strings.Join(names, " ")
	}
	const want = "gpuaas-x.socket gpuaas-x.timer gpuaas-x.service"
	if got := order(s.converge(m), host.StartService); got != want {
		t.Errorf("started %s", got)
	}
	if got := order(s.converge(nil), host.StopService); got != want {
		t.Errorf("stopped %s", got)
	}
}

// BenchmarkNothingToDo plans 1,000 resources on a node that is as it should be.
// Target of the design: below 5 ms.
func BenchmarkNothingToDo(b *testing.B) {
	s := newSim(b)
	var m []task.Resource
	for i := range 250 {
		id := fmt.Sprint(i)
		p := task.Package{Name: "p" + id, Repository: "r/p", Digest: dgA, Activate: true}
		f := task.File{Path: "/etc/gpuaas/" + id + ".env", Content: []byte(strings.Repeat("KEY=value\n", 100)), Mode: 0o640}
		u := task.Unit{Name: "gpuaas-" + id + ".service", Content: []byte(unitText(id) + strings.Repeat("# comment\n", 100))}
		on := true
		m = append(m, p, f, u, task.Service{Unit: u.Name, State: task.Running, Enabled: &on, RestartOn: []string{p.Ref(), f.Ref(), u.Ref()}})
	}
	s.converge(m)
	in := plan.Input{Resources: m, Observed: s.observe(m), Inventory: s.inv, Self: self, UnitDir: unitDir}
	b.ReportAllocs()
	for b.Loop() {
		if p := plan.Compute(in); !p.Converged() {
			b.Fatal(show(p))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/plan")
}
