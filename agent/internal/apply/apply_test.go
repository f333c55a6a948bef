package apply_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// bench is an applier on a fake manager and real folders.
type bench struct {
	*fake
	*apply.Applier
	inv     host.Inventory
	saves   int
	records []apply.Record
}

func newBench(t *testing.T) *bench {
	t.Helper()
	f := newFake(t)
	return &bench{fake: f, inv: host.NewInventory(), Applier: &apply.Applier{
		Systemd: f, Packages: f, Stager: f, UnitDir: f.dir, FileRoots: []string{t.TempDir()},
		Now: func() time.Time { return time.Unix(1700000000, 0) },
	}}
}

func (b *bench) do(steps ...host.Step) error {
	return b.Run(context.Background(), steps, &b.inv,
		func(host.Inventory) error { b.saves++; return nil },
		func(r apply.Record) { b.records = append(b.records, r) })
}

func (b *bench) path(name string) string { return filepath.Join(b.FileRoots[0], name) }

func write(f task.File) host.Step {
	return host.Step{Action: host.WriteFile, Ref: f.Ref(), Task: f.Source, File: &f, Name: f.Path}
}

func unit(name, content string) host.Step {
	u := task.Unit{Name: name, Content: []byte(content)}
	return host.Step{Action: host.WriteUnit, Ref: u.Ref(), Unit: &u, Name: name}
}

var reload = host.Step{Action: host.DaemonReload}

func TestWriteAndRemoveFile(t *testing.T) {
	b := newBench(t)
	f := task.File{Path: b.path("a/b/file"), Content: []byte("one"), Mode: 0o640}
	check(t, b.do(write(f)))
	info, err := os.Lstat(f.Path)
	check(t, err)
	if info.Mode() != 0o640 || read(t, f.Path) != "one" {
		t.Errorf("got %v, %q", info.Mode(), read(t, f.Path))
	}
	first := b.inv.Files[f.Path]
	if first.Digest == "" || first.Mode != 0o640 {
		t.Errorf("inventory: %+v", first)
	}
	f.Content, f.Mode = []byte("two"), 0o600
	check(t, b.do(write(f)))
	rec := b.records[1]
	if rec.Before != first.Digest || rec.After != b.inv.Files[f.Path].Digest || rec.Before == rec.After || rec.Err != nil {
		t.Errorf("record: %+v", rec)
	}
	before, err := os.Stat(f.Path)
	check(t, err)
	check(t, b.do(write(f)))
	if after, err := os.Stat(f.Path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a file that was right was replaced (%v)", err)
	}
	for range 2 {
		check(t, b.do(host.Step{Action: host.RemoveFile, Ref: f.Ref(), Name: f.Path}))
	}
	if _, err := os.Lstat(f.Path); !errors.Is(err, os.ErrNotExist) || len(b.inv.Files) != 0 {
		t.Errorf("left: %v, %v", err, b.inv.Files)
	}
	check(t, b.do(host.Step{Action: host.RemoveFile, Ref: "file/" + b.path("no/such/folder"), Name: b.path("no/such/folder")}))
}

// Whatever lies on the way: nothing outside the roots is touched, nothing that
// isn't the agent's is lost, and the inventory doesn't claim what wasn't made.
func TestFilesThatCannotBeWritten(t *testing.T) {
	b := newBench(t)
	outside := t.TempDir()
	check(t, os.WriteFile(filepath.Join(outside, "file"), []byte("untouched"), 0o600))
	check(t, os.Symlink(outside, b.path("link")))
	check(t, os.Symlink(filepath.Join(outside, "file"), b.path("leaf")))
	check(t, os.WriteFile(b.path("plain"), []byte("untouched"), 0o600))
	check(t, os.Mkdir(b.path("folder"), 0o700))
	check(t, os.WriteFile(b.path("folder/kept"), nil, 0o600))
	for _, test := range []struct {
		name   string
		file   task.File
		reason v1.Reason
		words  string
	}{
		{"through a symlink", task.File{Path: b.path("link/file")}, v1.ReasonConflict, "is a symlink"},
		{"through a file", task.File{Path: b.path("plain/file")}, v1.ReasonConflict, "not a folder"},
		{"over a folder", task.File{Path: b.path("folder")}, v1.ReasonConflict, "in the way"},
		{"outside of the roots", task.File{Path: filepath.Join(outside, "new")}, v1.ReasonGuard, "may write to"},
		{"above the root", task.File{Path: b.FileRoots[0]}, v1.ReasonGuard, "may write to"},
		{"dots", task.File{Path: b.path("x") + "/../../y"}, v1.ReasonGuard, "clean path"},
		{"relative", task.File{Path: "x"}, v1.ReasonGuard, "absolute"},
		{"unknown owner", task.File{Path: b.path("o"), Owner: "no-such-user"}, v1.ReasonNotWritable, `no user "no-such-user"`},
		{"unknown group", task.File{Path: b.path("o"), Group: "no-such-group"}, v1.ReasonNotWritable, `no group "no-such-group"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.file.Content, test.file.Mode = []byte("new"), 0o644
			err := b.do(write(test.file))
			var e *host.Error
			if !errors.As(err, &e) || e.Reason != test.reason || e.Element != test.file.Ref() || e.Component != "apply" ||
				!strings.Contains(err.Error(), test.words) {
				t.Errorf("got %+v", err)
			}
			if _, owned := b.inv.Files[test.file.Path]; owned {
				t.Error("the inventory claims it")
			}
		})
	}
	// A link at the end of the path is replaced and not followed: the planner
	// decided that it may be.
	check(t, b.do(write(task.File{Path: b.path("leaf"), Content: []byte("new"), Mode: 0o600})))
	if read(t, filepath.Join(outside, "file")) != "untouched" || read(t, b.path("plain")) != "untouched" || read(t, b.path("leaf")) != "new" {
		t.Error("something else was written")
	}
	if err := b.do(host.Step{Action: host.RemoveFile, Ref: "file/" + b.path("folder"), Name: b.path("folder")}); err == nil {
		t.Error("a folder was removed")
	}
	if err := b.do(host.Step{Action: host.RemoveFile, Ref: "file/" + b.path("link/file"), Name: b.path("link/file")}); err == nil {
		t.Error("a file behind a symlink was removed")
	}
}

// A unit that systemd can't load, and all others written with it, are as
// before, on disk and in systemd, and nothing was started.
func TestBadUnitIsTakenBack(t *testing.T) {
	b := newBench(t)
	check(t, b.do(unit("gpuaas-a.service", "old a"), unit("gpuaas-b.service", "old b"), reload))
	digest := b.inv.Units["gpuaas-a.service"].Digest
	start := host.Step{Action: host.StartService, Ref: "service/gpuaas-a.service", Name: "gpuaas-a.service", Inputs: "x"}
	err := b.do(unit("gpuaas-a.service", "new a"), unit("gpuaas-b.service", "BAD"), unit("gpuaas-c.service", "new c"), reload, start)
	var e *host.Error
	if !errors.As(err, &e) || e.Reason != v1.ReasonUnitInvalid || e.Element != "unit/gpuaas-b.service" || !strings.Contains(err.Error(), "line 1 is bad") {
		t.Fatalf("got %v", err)
	}
	for name, want := range map[string]string{"gpuaas-a.service": "old a", "gpuaas-b.service": "old b", "gpuaas-c.service": ""} {
		if got, _ := b.disk(name); got != want || b.loaded[name] != want {
			t.Errorf("%s: on disk %q, loaded %q, want %q", name, got, b.loaded[name], want)
		}
	}
	if _, owned := b.inv.Units["gpuaas-c.service"]; owned || b.inv.Units["gpuaas-a.service"].Digest != digest || len(b.running) > 0 {
		t.Errorf("inventory %+v, running %v", b.inv.Units, b.running)
	}
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the unit folder holds %v, %v", entries, err)
	}
}

// A crash between writing a bad unit and finding out doesn't lose the former one.
func TestBadUnitIsTakenBackAfterCrash(t *testing.T) {
	b := newBench(t)
	check(t, b.do(unit("gpuaas-a.service", "old a"), reload))
	check(t, b.do(unit("gpuaas-a.service", "BAD"))) // and dead
	again := newBench(t)
	again.Applier, again.fake, again.inv = b.Applier, b.fake, b.inv.Clone()
	if err := again.do(reload); host.AsError(err).Reason != v1.ReasonUnitInvalid {
		t.Fatalf("got %v", err)
	}
	if got, _ := b.disk("gpuaas-a.service"); got != "old a" || b.loaded["gpuaas-a.service"] != "old a" {
		t.Errorf("on disk %q, loaded %q", got, b.loaded["gpuaas-a.service"])
	}
}

func TestBadUnitName(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"../x.service", "a/b.service", "", ".hidden.service"} {
		if err := b.do(unit(name, "x")); host.AsError(err).Reason != v1.ReasonGuard {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

// The first step that fails ends the run; what came before stays and is recorded.
func TestFirstFailureEndsTheRun(t *testing.T) {
	b := newBench(t)
	b.fail["activate p"] = errors.New("no")
	pkg := &task.Package{Name: "p", Digest: "sha256:1", Activate: true}
	err := b.do(
		host.Step{Action: host.StagePackage, Ref: "package/p", Package: pkg, Name: "p"},
		write(task.File{Path: b.path("f"), Content: []byte("x"), Mode: 0o600}),
		host.Step{Action: host.ActivatePackage, Ref: "package/p", Package: pkg, Name: "p"},
		host.Step{Action: host.StartService, Ref: "service/s.service", Name: "s.service"},
	)
	e := host.AsError(err)
	if e.Element != "package/p" || !strings.Contains(err.Error(), "no") {
		t.Errorf("got %+v", e)
	}
	if len(b.records) != 3 || b.records[0].Err != nil || b.records[1].Err != nil || b.records[2].Err == nil || len(b.running) > 0 {
		t.Errorf("records %+v", b.records)
	}
	if read(t, b.path("f")) != "x" || len(b.inv.Files) != 1 {
		t.Errorf("inventory %+v", b.inv)
	}
}

// What isn't known stays pending, what failed doesn't.
func TestRestartThatFails(t *testing.T) {
	restart := host.Step{Action: host.RestartService, Ref: "service/s.service", Name: "s.service", Inputs: "new"}
	for _, test := range []struct {
		name    string
		err     error
		pending bool
	}{
		{"unknown", unreachable(), true},
		{"cancelled", context.Canceled, true},
		{"failed", &host.Error{Component: "systemd", Reason: v1.ReasonJobFailed, Err: errors.New("no")}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.inv.Services["s.service"] = host.OwnedService{Inputs: "old"}
			b.running["s.service"] = 7
			b.fail["restart s.service"] = test.err
			if err := b.do(restart); err == nil {
				t.Fatal("no error")
			}
			own := b.inv.Services["s.service"]
			if own.Inputs != "old" || (own.Pending != nil) != test.pending {
				t.Errorf("got %+v", own)
			}
			if test.pending && *own.Pending != (host.PendingRestart{Inputs: "new", Invocation: "7"}) {
				t.Errorf("got %+v", own.Pending)
			}
			delete(b.fail, "restart s.service")
			check(t, b.do(restart))
			if own := b.inv.Services["s.service"]; own.Inputs != "new" || own.Pending != nil {
				t.Errorf("got %+v", own)
			}
		})
	}
}

func TestOneShots(t *testing.T) {
	b := newBench(t)
	b.running["s.service"] = 1
	action := func(id string, a task.Action) host.Step {
		s := task.Service{Unit: "s.service", Action: a, Source: id}
		return host.Step{Action: host.RunAction, Ref: s.Ref(), Task: id, Service: &s, Name: s.Unit}
	}
	b.fail["restart s.service"] = unreachable()
	if err := b.do(action("one", task.Restart)); err == nil || len(b.inv.Actions) > 0 || len(b.inv.PendingActions) != 1 {
		t.Errorf("got %v, %+v", err, b.inv)
	}
	delete(b.fail, "restart s.service")
	b.running["s.service"] = 2 // it did happen
	check(t, b.do(action("one", task.Restart), action("two", task.Reload), action("three", task.Restart)))
	if b.restarts["s.service"] != 1 || b.reloads["s.service"] != 1 || len(b.inv.Actions) != 3 || len(b.inv.PendingActions) > 0 {
		t.Errorf("%d restarts, %d reloads, %+v", b.restarts["s.service"], b.reloads["s.service"], b.inv)
	}
	if len(b.inv.Services) > 0 {
		t.Error("a one-shot made the service the agent's own")
	}
}

func TestForget(t *testing.T) {
	b := newBench(t)
	b.inv.Packages["p"], b.inv.Files["/f"] = host.OwnedPackage{}, host.OwnedFile{}
	b.inv.Units["u.service"], b.inv.Services["u.service"] = host.OwnedUnit{}, host.OwnedService{}
	for _, ref := range []string{"package/p", "file//f", "unit/u.service", "service/u.service"} {
		check(t, b.do(host.Step{Action: host.ForgetResource, Ref: ref}))
	}
	if len(b.inv.Packages)+len(b.inv.Files)+len(b.inv.Units)+len(b.inv.Services) > 0 {
		t.Errorf("left %+v", b.inv)
	}
}

// An inventory that can't be saved stops everything before the host changes.
func TestInventoryCannotBeSaved(t *testing.T) {
	b := newBench(t)
	full := errors.New("no space left")
	err := b.Run(t.Context(), []host.Step{
		write(task.File{Path: b.path("f"), Content: []byte("x"), Mode: 0o600}),
	}, &b.inv, func(host.Inventory) error { return full }, func(apply.Record) {})
	if err == nil || !strings.Contains(err.Error(), "cannot save the inventory") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(b.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the file was written all the same")
	}
}

func TestCancelledBetweenSteps(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	var done []string
	err := b.Run(ctx, []host.Step{
		write(task.File{Path: b.path("a"), Content: []byte("x"), Mode: 0o600}),
		write(task.File{Path: b.path("b"), Content: []byte("x"), Mode: 0o600}),
	}, &b.inv, func(host.Inventory) error { return nil }, func(r apply.Record) { done = append(done, r.Step.Name); cancel() })
	if !errors.Is(err, context.Canceled) || !slices.Equal(done, []string{b.path("a")}) {
		t.Errorf("got %v after %v", err, done)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
