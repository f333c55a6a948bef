package observe_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/observe"
	"github.com/gpuaas/node-agent/schema/task"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("plain"), "content", 0o640)
	write(t, at("odd"), "", 0o4755)
	check(t, os.Chmod(at("odd"), 0o755|os.ModeSetuid))
	check(t, os.Mkdir(at("folder"), 0o700))
	check(t, os.Symlink("plain", at("link")))
	check(t, os.Symlink("nowhere", at("dangling")))
	check(t, syscall.Mkfifo(at("pipe"), 0o600))
	check(t, os.WriteFile(at("limit"), nil, 0o600))
	check(t, os.Truncate(at("limit"), observe.MaxFile))
	check(t, os.WriteFile(at("large"), nil, 0o600))
	check(t, os.Truncate(at("large"), observe.MaxFile+1))
	for name, want := range map[string]host.FileState{
		"plain":    {Exists: true, Kind: "file", Digest: digest("content"), Size: 7, Mode: 0o640},
		"odd":      {Exists: true, Kind: "file", Digest: digest(""), Mode: 0o755},
		"limit":    {Exists: true, Kind: "file", Digest: digest(string(make([]byte, observe.MaxFile))), Size: observe.MaxFile, Mode: 0o600},
		"large":    {Exists: true, Kind: "file", Size: observe.MaxFile + 1, Mode: 0o600},
		"folder":   {Exists: true, Kind: "dir"},
		"link":     {Exists: true, Kind: "symlink"},
		"dangling": {Exists: true, Kind: "symlink"},
		"pipe":     {Exists: true, Kind: "other"},
		"none":     {},
		"none/too": {},
	} {
		got := observe.File(at(name))
		if want.Kind == "file" {
			want.UID, want.GID = got.UID, got.GID
			if int(got.UID) != os.Getuid() || got.Owner == "" || got.Group == "" {
				t.Errorf("%s: owner is %+v", name, got)
			}
			want.Owner, want.Group = got.Owner, got.Group
		}
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
	if got := observe.File(at("plain/below")); got.Exists || got.Err == "" {
		t.Errorf("below a file: %+v", got)
	}
}

func TestOwnerWithoutName(t *testing.T) {
	if os.Getuid() != 0 {
		// Only root can give a file away; for others the name is the id's own.
		return
	}
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "", 0o600)
	check(t, os.Chown(path, 3999999, 3999998))
	got := observe.File(path)
	if got.Owner != strconv.Itoa(3999999) || got.Group != strconv.Itoa(3999998) || got.UID != 3999999 || got.GID != 3999998 {
		t.Errorf("got %+v", got)
	}
}

type units struct {
	asked []string
	err   error
}

func (u *units) Units(_ context.Context, names []string) (map[string]host.UnitState, error) {
	u.asked = names
	states := map[string]host.UnitState{}
	for _, n := range names {
		states[n] = host.UnitState{LoadState: "loaded"}
	}
	return states, u.err
}

type packages struct{ err error }

func (p packages) State(name string) (host.PackageState, error) {
	return host.PackageState{Current: "of " + name}, p.err
}

// Everything that the manifest or the inventory mentions is looked at, and
// nothing else.
func TestObserve(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.service"), "unit", 0o644)
	write(t, filepath.Join(dir, "other.service"), "unit", 0o644)
	resources := []task.Resource{
		task.Package{Name: "p1"}, task.File{Path: filepath.Join(dir, "f1")},
		task.Unit{Name: "a.service"}, task.Service{Unit: "b.service"},
	}
	inv := host.NewInventory()
	inv.Packages["p2"] = host.OwnedPackage{}
	inv.Files[filepath.Join(dir, "f2")] = host.OwnedFile{}
	inv.Units["c.timer"] = host.OwnedUnit{}
	inv.Services["d.service"] = host.OwnedService{}
	u := &units{}
	o := observe.Observer{Units: u, Packages: packages{}, UnitDir: dir}
	got, err := o.Observe(t.Context(), resources, inv)
	check(t, err)
	want := []string{"a.service", "b.service", "c.timer", "d.service"}
	if !slices.Equal(u.asked, want) || !slices.Equal(slices.Sorted(maps.Keys(got.Units)), want) {
		t.Errorf("units: asked %v, got %v", u.asked, got.Units)
	}
	if a := got.Units["a.service"]; a.File.Digest != digest("unit") || a.LoadState != "loaded" {
		t.Errorf("got %+v", a)
	}
	if b := got.Units["b.service"]; b.File.Exists {
		t.Errorf("got %+v", b)
	}
	if p := slices.Sorted(maps.Keys(got.Packages)); !slices.Equal(p, []string{"p1", "p2"}) || got.Packages["p1"].Current != "of p1" {
		t.Errorf("got %+v", got.Packages)
	}
	if f := slices.Sorted(maps.Keys(got.Files)); !slices.Equal(f, []string{filepath.Join(dir, "f1"), filepath.Join(dir, "f2")}) {
		t.Errorf("got %v", f)
	}
	for name, broken := range map[string]observe.Observer{
		"units":    {Units: &units{err: errors.New("no")}, Packages: packages{}},
		"packages": {Units: u, Packages: packages{err: errors.New("no")}},
	} {
		if _, err := broken.Observe(t.Context(), resources, inv); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func digest(content string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content))) }

func write(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	check(t, os.WriteFile(path, []byte(content), mode))
	check(t, os.Chmod(path, mode))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
