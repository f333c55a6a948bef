package loop_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/guard"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/loop"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/agent/internal/source"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// world is a loop over a real journal, real verification and a real planner, on
// a host that lives in memory, so that failures happen when a test wants them.
// The same loop on a real host is in test/integration.
type world struct {
	t   *testing.T
	dir string
	// mu guards what follows where the loop runs beside the test.
	mu   sync.Mutex
	repo *trusttest.Repo
	now  time.Time
	// clock, if set, is used instead of now.
	clock    func() time.Time
	observed int

	// The source.
	commit  string
	commits int
	polls   []string // what was known at each poll
	down    error

	// The host.
	files    map[string]task.File
	units    map[string]task.Unit
	active   map[string]int // unit -> how often it was started
	running  map[string]bool
	packages map[string]map[string]bool

	// Failures that a test asks for.
	rootErr   error
	stageErr  error
	applyErr  map[string]error // by Ref
	unhealthy func([]task.Service) error
	kill      bool // the next apply dies half way

	applied []string // "action ref", in order
	loop    *loop.Loop
	journal *journal.Journal
	status  v1.NodeStatus
	audit   *report.Audit
	changes chan string
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, dir: t.TempDir(), repo: trusttest.New(t), now: trusttest.Start,
		files: map[string]task.File{}, units: map[string]task.Unit{}, active: map[string]int{}, running: map[string]bool{},
		packages: map[string]map[string]bool{}, applyErr: map[string]error{}, changes: make(chan string, 1),
	}
	w.start()
	return w
}

// start opens the journal and makes a loop, as a new agent process would.
func (w *world) start() {
	w.t.Helper()
	j, setAside, err := journal.Open(filepath.Join(w.dir, "state"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { j.Close() })
	audit, err := report.OpenAudit(filepath.Join(w.dir, "audit"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.journal, w.audit = j, audit
	w.loop, err = loop.New(loop.Settings{
		Node: trusttest.Node, Team: trusttest.Team, AgentVersion: "test",
		BootstrapRoot: func() ([]byte, error) { return w.repo.Bootstrap(), w.rootErr },
		Guard:         guard.Default(guard.Paths{PackageRoot: "/opt/gpuaas/packages", FileRoots: []string{"/etc/gpuaas"}, UnitDir: "/etc/systemd/system"}),
		PollInterval:  time.Minute, PollTimeout: time.Minute, ScanInterval: time.Hour, StaleAfter: time.Hour,
		Now: w.time,
	}, loop.Parts{
		Source: w, Packages: w, Observer: w, Applier: w, Prober: w, Watcher: w, Notifier: quiet{},
		Journal: j, Audit: audit, Log: slog.New(slog.DiscardHandler),
		Publish: func(s v1.NodeStatus) error {
			w.do(func() {
				w.status = s
				w.status.Conditions = slices.Clone(s.Conditions)
			})
			return nil
		},
	}, setAside)
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) time() time.Time {
	if w.clock != nil {
		return w.clock()
	}
	return w.now
}

// do lets a test look at the world, or change it, while the loop runs.
func (w *world) do(act func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	act()
}

// restart ends the agent without a goodbye and starts it again.
func (w *world) restart() {
	w.t.Helper()
	w.journal.Close()
	w.start()
}

func (w *world) once() v1.NodeStatus { return w.loop.Once(w.t.Context()) }

// publish signs a manifest whose service prints text.
func (w *world) publish(generation int, text string, tasks ...string) {
	w.publishManifest(manifest(generation, text, tasks...))
}

func (w *world) publishManifest(data string) {
	w.repo.Publish(trusttest.Node, []byte(data))
	w.push()
}

func (w *world) push() {
	w.commits++
	w.commit = fmt.Sprintf("%040d", w.commits)
}

func manifest(generation int, text string, tasks ...string) string {
	return fmt.Sprintf(`apiVersion: fleet.gpuaas.dev/v1
kind: NodeManifest
node: %s
generation: %d
source:
  repo: https://git.example.com/fleet.git
  commit: "0123456789012345678901234567890123456789"
packages:
  - {name: app, ref: registry.example.com/app, digest: "sha256:%064d"}
tasks:
  - {id: env, type: runtime.write_env_file, with: {path: /etc/gpuaas/app.env, env: {TEXT: %q}}}
  - id: unit
    type: runtime.install_service_unit
    with:
      unit: gpuaas-app.service
      content: |
        [Service]
        ExecStart=/opt/gpuaas/packages/app/current/bin/app
        EnvironmentFile=/etc/gpuaas/app.env
  - id: service
    type: runtime.service_control
    with: {unit: gpuaas-app.service, state: running, restartOn: [env, unit, package/app]}
%s`, trusttest.Node, generation, 1, text, strings.Join(tasks, ""))
}

// Poll implements loop.Source.
func (w *world) Poll(_ context.Context, known string) (*source.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.polls = append(w.polls, known)
	if w.down != nil {
		return nil, w.down
	}
	if known == w.commit {
		return nil, nil
	}
	return source.NewSnapshot(w.commit, w.repo.Files()), nil
}

// Stage implements loop.Packages.
func (w *world) Stage(_ context.Context, p task.Package) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stageErr != nil {
		return w.stageErr
	}
	if w.packages[p.Name] == nil {
		w.packages[p.Name] = map[string]bool{}
	}
	w.packages[p.Name][p.Digest] = true
	return nil
}

// ReadFile implements loop.Packages.
func (w *world) ReadFile(string, string, string) ([]byte, error) {
	return nil, errors.New("no unit comes from a package here")
}

// Collect implements loop.Packages.
func (w *world) Collect(map[string][]string) error { return nil }

// Observe implements loop.Observer.
func (w *world) Observe(_ context.Context, resources []task.Resource, inv host.Inventory) (host.Observed, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.observed++
	o := host.Observed{Packages: map[string]host.PackageState{}, Files: map[string]host.FileState{}, Units: map[string]host.UnitState{}}
	pkg := func(name string) {
		o.Packages[name] = host.PackageState{Current: inv.Packages[name].Digest, Versions: w.packages[name]}
	}
	file := func(path string) {
		if f, ok := w.files[path]; ok {
			o.Files[path] = host.FileState{Exists: true, Kind: "file", Digest: digest(f.Content), Mode: f.Mode}
		} else {
			o.Files[path] = host.FileState{}
		}
	}
	unit := func(name string) {
		s := host.UnitState{LoadState: "not-found", ActiveState: "inactive"}
		if u, ok := w.units[name]; ok {
			s.LoadState, s.File = "loaded", host.FileState{Exists: true, Kind: "file", Digest: digest(u.Content), Mode: host.UnitMode}
			s.Fragment = "/etc/systemd/system/" + name
		}
		if w.running[name] {
			s.ActiveState, s.SubState, s.InvocationID, s.MainPID = "active", "running", fmt.Sprint(w.active[name]), 1
		}
		o.Units[name] = s
	}
	for _, r := range resources {
		switch r := r.(type) {
		case task.Package:
			pkg(r.Name)
		case task.File:
			file(r.Path)
		case task.Unit:
			unit(r.Name)
		case task.Service:
			unit(r.Unit)
		}
	}
	for name := range inv.Packages {
		pkg(name)
	}
	for path := range inv.Files {
		file(path)
	}
	for name := range inv.Units {
		unit(name)
	}
	for name := range inv.Services {
		unit(name)
	}
	return o, nil
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Run implements loop.Applier: what agent/internal/apply does, in memory.
func (w *world) Run(_ context.Context, steps []host.Step, inv *host.Inventory, save func(host.Inventory) error, record func(apply.Record)) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range steps {
		if w.kill && i == len(steps)/2 {
			return errKilled
		}
		if err := w.applyErr[s.Ref]; err != nil {
			record(apply.Record{Step: s, Err: err})
			return err
		}
		w.applied = append(w.applied, s.Action.String()+" "+s.Ref)
		w.applyStep(s, inv)
		if err := save(*inv); err != nil {
			return err
		}
		record(apply.Record{Step: s})
	}
	return nil
}

var errKilled = errors.New("killed")

func (w *world) applyStep(s host.Step, inv *host.Inventory) {
	switch s.Action {
	case host.WriteFile:
		inv.Files[s.File.Path] = host.OwnedFile{Digest: digest(s.File.Content), Mode: s.File.Mode, Owner: s.File.Owner, Group: s.File.Group}
		w.files[s.File.Path] = *s.File
	case host.RemoveFile:
		delete(w.files, s.Name)
		delete(inv.Files, s.Name)
	case host.WriteUnit:
		inv.Units[s.Unit.Name] = host.OwnedUnit{Digest: digest(s.Unit.Content)}
		w.units[s.Unit.Name] = *s.Unit
	case host.RemoveUnit:
		delete(w.units, s.Name)
		delete(inv.Units, s.Name)
	case host.StagePackage:
		inv.Packages[s.Package.Name] = host.OwnedPackage{}
	case host.ActivatePackage:
		inv.Packages[s.Package.Name] = host.OwnedPackage{Digest: s.Package.Digest}
	case host.RemovePackage:
		delete(w.packages, s.Name)
		delete(inv.Packages, s.Name)
	case host.StartService, host.RestartService:
		w.active[s.Service.Unit]++
		w.running[s.Service.Unit] = true
		inv.Services[s.Service.Unit] = host.OwnedService{Inputs: s.Inputs}
	case host.StopService:
		w.running[s.Name] = false
		delete(inv.Services, s.Name)
	case host.ForgetResource:
		_, name, _ := strings.Cut(s.Ref, "/")
		delete(inv.Services, name)
		delete(inv.Files, name)
		delete(inv.Units, name)
		delete(inv.Packages, name)
	case host.DaemonReload:
	default:
		w.t.Fatalf("the host in memory doesn't know %s", s.Action)
	}
}

// Probe implements loop.Prober.
func (w *world) Probe(_ context.Context, services []task.Service) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unhealthy != nil {
		return w.unhealthy(services)
	}
	return nil
}

// Watch implements loop.Watcher.
func (w *world) Watch(_, _, _ []string) {}

// Changes implements loop.Watcher.
func (w *world) Changes() <-chan string { return w.changes }

type quiet struct{}

func (quiet) Ready()        {}
func (quiet) Status(string) {}
func (quiet) Working()      {}
func (quiet) Waiting()      {}
func (quiet) Stopping()     {}
