package plan_test

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/schema/task"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func maybe(r *rand.Rand) bool { return r.IntN(2) == 0 }

// randomManifest makes resources out of a small pool of names, so that
// manifests which follow each other overlap.
func randomManifest(r *rand.Rand) []task.Resource {
	var out []task.Resource
	var inputs []string
	var packages []string
	for i := range 3 {
		if maybe(r) {
			p := task.Package{Name: fmt.Sprintf("p%d", i), Repository: "r/p", Digest: pick(r, dgA, dgB), Activate: r.IntN(4) > 0}
			out, inputs = append(out, p), append(inputs, p.Ref())
			packages = append(packages, p.Name)
		}
	}
	for i := range 4 {
		if maybe(r) {
			f := task.File{Path: fmt.Sprintf("/etc/gpuaas/f%d", i), Content: []byte(pick(r, "a", "b")), Mode: pick[fs.FileMode](r, 0o640, 0o600),
				Owner: pick(r, "", "alice"), Source: fmt.Sprintf("t-f%d", i)}
			out, inputs = append(out, f), append(inputs, f.Ref())
		}
	}
	for i := range 4 {
		if !maybe(r) {
			continue
		}
		u := task.Unit{Name: fmt.Sprintf("gpuaas-u%d.%s", i, pick(r, "service", "timer")), Source: fmt.Sprintf("t-u%d", i)}
		if len(packages) > 0 && maybe(r) {
			u.Package, u.File = pick(r, packages...), "x.service"
		} else {
			u.Content = []byte(unitText(pick(r, "a", "b")))
		}
		out, inputs = append(out, u), append(inputs, u.Ref())
		if r.IntN(4) == 0 {
			continue
		}
		svc := task.Service{Unit: u.Name, State: pick(r, task.Running, task.Running, task.Stopped), Source: fmt.Sprintf("t-s%d", i)}
		if r.IntN(3) > 0 {
			on := maybe(r)
			svc.Enabled = &on
		}
		if svc.State == task.Running {
			for _, ref := range inputs {
				if maybe(r) {
					svc.RestartOn = append(svc.RestartOn, ref)
				}
			}
		}
		if r.IntN(6) == 0 {
			svc = task.Service{Unit: u.Name, Action: pick(r, task.Restart, task.Reload), Source: fmt.Sprintf("once-%d-%d", i, r.IntN(2))}
		}
		out = append(out, svc)
	}
	return out
}

// drift does something by hand to what the agent owns.
func (s *sim) drift(r *rand.Rand) {
	for _, path := range slices.Sorted(maps.Keys(s.inv.Files)) {
		switch f := s.files[path]; r.IntN(12) {
		case 0:
			delete(s.files, path)
		case 1:
			f.Digest = digest("edited")
			s.files[path] = f
		case 2:
			f.Mode = 0o777
			s.files[path] = f
		case 3:
			f.Owner = "mallory"
			s.files[path] = f
		case 4:
			s.files[path] = host.FileState{Exists: true, Kind: "symlink"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.inv.Units)) {
		switch f := s.units[name]; r.IntN(10) {
		case 0:
			delete(s.units, name)
		case 1:
			f.Digest = digest("edited")
			s.units[name] = f
		case 2:
			// Links of a masked unit can't be removed before it is unmasked, which
			// takes a second pass.
			if !s.enabled[name] {
				s.units[name] = host.FileState{Exists: true, Kind: "symlink"}
			}
		}
		switch r.IntN(8) {
		case 0:
			delete(s.active, name)
		case 1:
			if s.units[name].Kind == "file" {
				s.enabled[name] = !s.enabled[name]
			}
		case 2:
			if f := s.units[name]; f.Exists && f.Kind == "file" && !s.active[name] {
				s.start(name, "by hand:")
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.inv.Packages)) {
		p := s.packages[name]
		switch r.IntN(8) {
		case 0:
			delete(s.packages, name)
		case 1:
			p.Current = ""
			if len(p.Versions) > 0 {
				s.packages[name] = p
			}
		}
	}
}

const (
	dgA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	dgB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// bystanders are things on the host that nobody asked the agent to touch.
func (s *sim) bystanders() func() {
	s.files["/etc/gpuaas/theirs"] = regular("theirs", 0o644, "bob")
	s.units["gpuaas-theirs.service"] = regular("theirs", 0o644, "")
	s.active["gpuaas-theirs.service"], s.enabled["gpuaas-theirs.service"] = true, true
	s.packages["theirs"] = host.PackageState{Current: dgA, Versions: map[string]bool{dgA: true}}
	return func() {
		s.t.Helper()
		if s.files["/etc/gpuaas/theirs"] != regular("theirs", 0o644, "bob") || !s.active["gpuaas-theirs.service"] ||
			!s.enabled["gpuaas-theirs.service"] || s.units["gpuaas-theirs.service"] != regular("theirs", 0o644, "") ||
			s.packages["theirs"].Current != dgA {
			s.t.Fatal("something that is not the agent's was touched")
		}
	}
}

func shuffled(r *rand.Rand, in []task.Resource) []task.Resource {
	out := slices.Clone(in)
	r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

const rounds = 400

// Whatever manifests follow each other and whatever is done by hand between
// them, one pass converges, and in the end everything owned can be pruned.
func TestOnePassConverges(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := newSim(t)
		check := s.bystanders()
		for range 6 {
			m := randomManifest(r)
			s.converge(m)
			check()
			s.drift(r)
			if maybe(r) {
				s.converge(m)
			}
		}
		s.converge(nil)
		check()
		s.inv.Actions = host.NewInventory().Actions
		if !reflect.DeepEqual(s.inv, host.NewInventory()) {
			t.Fatalf("seed %d: still owned: %+v", seed, s.inv)
		}
		if len(s.files) != 1 || len(s.units) != 1 || len(s.active) != 1 || len(s.packages) != 1 {
			t.Fatalf("seed %d: left behind: files %v units %v active %v packages %v", seed, s.files, s.units, s.active, s.packages)
		}
	}
}

// A service that runs was started on exactly what the manifest wants of its
// inputs, and isn't restarted when none of them changed.
func TestServicesRunWithTheirInputs(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := newSim(t)
		for range 6 {
			m := randomManifest(r)
			before := map[string]string{}
			for name := range s.active {
				before[name] = s.inv.Services[name].Inputs
			}
			s.ran = nil
			s.converge(m)
			for _, res := range m {
				svc, ok := res.(task.Service)
				if !ok || svc.State != task.Running {
					continue
				}
				if got, want := s.startedOn[svc.Unit], s.inputsOnHost(svc); got != want && len(svc.RestartOn) > 0 {
					t.Fatalf("seed %d: %s runs with\n%swanted\n%s", seed, svc.Unit, got, want)
				}
				starts := 0
				for _, ran := range s.ran {
					if ran == "restart "+svc.Unit || ran == "start "+svc.Unit {
						starts++
					}
				}
				if old, was := before[svc.Unit]; was && old == s.inv.Services[svc.Unit].Inputs && starts > 0 {
					t.Fatalf("seed %d: %s was restarted though its inputs are the same", seed, svc.Unit)
				}
				if starts > 1 {
					t.Fatalf("seed %d: %s was started %d times in one pass", seed, svc.Unit, starts)
				}
			}
		}
	}
}

// A plan depends on what there is, not on the order in which it is told.
func TestOrderOfInputDoesNotMatter(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 3))
		s := newSim(t)
		s.converge(randomManifest(r))
		s.drift(r)
		m := randomManifest(r)
		want := s.plan(m)
		for range 3 {
			if got := s.plan(shuffled(r, m)); show(got) != show(want) {
				t.Fatalf("seed %d: one order plans\n%sanother\n%s", seed, show(want), show(got))
			}
		}
	}
}

// A crash before, within or after any step neither loses nor repeats anything:
// the next pass converges, and no service is started more often than without
// the crash.
func TestCrashAtAnyStep(t *testing.T) {
	for seed := range uint64(rounds / 8) {
		first := func() (*sim, *rand.Rand) {
			r := rand.New(rand.NewPCG(seed, 4))
			s := newSim(t)
			s.converge(randomManifest(r))
			return s, r
		}
		s, r := first()
		m := randomManifest(r)
		_, p := s.prepare(m)
		s.ran = nil
		s.apply(p.Steps)
		without := slices.Sorted(slices.Values(s.ran))
		for at := range p.Steps {
			for part := range 3 {
				s, r := first()
				m := randomManifest(r)
				_, p := s.prepare(m)
				s.ran = nil
				s.apply(p.Steps[:at])
				if part > 0 {
					s.record(p.Steps[at])
				}
				if part > 1 {
					s.do(p.Steps[at])
				}
				s.converge(m)
				repeated := part > 1 && p.Steps[at].Action == host.RunAction
				if got := slices.Sorted(slices.Values(s.ran)); !slices.Equal(got, without) && !repeated {
					t.Fatalf("seed %d, crash at step %d (%s %s) part %d: ran %q, without crash %q\n%s",
						seed, at, p.Steps[at].Action, p.Steps[at].Ref, part, got, without, show(p))
				}
			}
		}
	}
}

// Going back to an older manifest restores what was, and steps are sorted.
func TestThereAndBack(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 5))
		s := newSim(t)
		a, b := randomManifest(r), randomManifest(r)
		s.converge(a)
		files := len(s.files)
		s.converge(b)
		p := s.converge(a)
		if len(s.files) != files {
			t.Fatalf("seed %d: %d files, before %d", seed, len(s.files), files)
		}
		sorted := slices.Clone(p.Steps)
		host.SortSteps(sorted)
		if !reflect.DeepEqual(sorted, p.Steps) {
			t.Fatalf("seed %d: steps are not sorted", seed)
		}
		for _, step := range p.Steps {
			if step.Reason == "" {
				t.Fatalf("seed %d: %s %s has no reason", seed, step.Action, step.Ref)
			}
		}
	}
}

func TestInputsDoNotDependOnOrder(t *testing.T) {
	for seed := range uint64(rounds) {
		r := rand.New(rand.NewPCG(seed, 6))
		m := randomManifest(r)
		for _, res := range m {
			svc, ok := res.(task.Service)
			if !ok {
				continue
			}
			want := plan.Inputs(svc, m)
			slices.Reverse(svc.RestartOn)
			if got := plan.Inputs(svc, shuffled(r, m)); got != want {
				t.Fatalf("seed %d: inputs %s and %s", seed, got, want)
			}
		}
	}
}
