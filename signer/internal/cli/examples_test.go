package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/schema/task"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
	"github.com/gpuaas/node-agent/signer/internal/pack"
	"github.com/gpuaas/node-agent/signer/internal/render"
)

const top = "../../.."

// TestFleets validates and renders the template and every example.
func TestFleets(t *testing.T) {
	fleets, err := filepath.Glob(filepath.Join(top, "examples", "*", "fleet"))
	if err != nil || len(fleets) < 2 {
		t.Fatalf("found %v: %v", fleets, err)
	}
	for _, dir := range append(fleets, filepath.Join(top, "fleet-repo-template")) {
		t.Run(dir, func(t *testing.T) {
			f, err := fleet.Load(os.DirFS(dir))
			if err != nil {
				t.Fatal(err)
			}
			manifests, err := render.Render(f)
			if err != nil {
				t.Fatal(err)
			}
			for id, m := range manifests {
				if len(m.Tasks) == 0 {
					t.Errorf("node %s has nothing to do", id)
				}
			}
		})
	}
}

// TestExamplePackages builds the package of every example as its README says,
// and holds the fleet's tasks against what is in it.
func TestExamplePackages(t *testing.T) {
	packages, err := filepath.Glob(filepath.Join(top, "examples", "*", "package"))
	if err != nil || len(packages) < 2 {
		t.Fatalf("found %v: %v", packages, err)
	}
	for _, dir := range packages {
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) {
			src := t.TempDir()
			if err := os.CopyFS(src, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(src, "build")); err != nil {
				t.Fatal(err)
			}
			build := exec.Command(filepath.Join(dir, "build.sh"), filepath.Join(src, "build"), runtime.GOARCH)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", build, err, out)
			}
			// The other platform stands in with the same files: building for it takes
			// minutes and shows nothing more.
			for _, arch := range []string{"amd64", "arm64"} {
				if arch == runtime.GOARCH {
					continue
				}
				if err := os.CopyFS(filepath.Join(src, "build", "linux-"+arch), os.DirFS(filepath.Join(src, "build", "linux-"+runtime.GOARCH))); err != nil {
					t.Fatal(err)
				}
			}
			info, err := pack.Build(src, filepath.Join(t.TempDir(), "layout"), pack.BuildOptions{})
			if err != nil {
				t.Fatal(err)
			}
			checkUses(t, filepath.Join(filepath.Dir(dir), "fleet"), info)
		})
	}
}

// checkUses: what the fleet's tasks use of the package is in it.
func checkUses(t *testing.T, dir string, info *pack.Info) {
	t.Helper()
	f, err := fleet.Load(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := f.Package(info.Name); !ok || p.Version != info.Version || strings.Join(p.Platforms, " ") != strings.Join(info.PlatformNames(), " ") {
		t.Errorf("the fleet has %+v, the package is %+v", p.PackagePin, info)
	}
	manifests, err := render.Render(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifests {
		resources, err := m.Resources()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resources {
			u, ok := r.(task.Unit)
			if !ok || u.Package == "" {
				continue
			}
			for _, p := range info.Platforms {
				if !strings.Contains(" "+strings.Join(p.Units, " ")+" ", " "+u.File+" ") {
					t.Errorf("task %s takes %s from the package, whose units are %v", u.Source, u.File, p.Units)
				}
			}
		}
	}
}
