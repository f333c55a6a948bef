package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// smallDisk mounts a file system of its own on a folder of the node, which only
// root can. It has room for what the agent leaves free besides.
func smallDisk(w *world, dir string) {
	w.t.Helper()
	w.must(os.MkdirAll(dir, 0o755))
	w.must(syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size=96m"))
	w.t.Cleanup(func() {
		// The namespace of a manager that just ended may hold it for a moment.
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			w.t.Error(err)
		}
	})
}

// The disk for packages is full: the node keeps what it has, says so, and goes on
// by itself when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root, so no file system can be mounted; TestUnwritableFolders has what is possible")
		return
	}
	w := newWorld(t, options{prepare: func(w *world) { smallDisk(w, w.node.packages) }})
	w.startAgent()
	w.install()
	w.deliver("run the story")
	fill := filepath.Join(w.node.packages, "fill")
	fillUp(t, fill)
	before, list := w.runs(service), w.list()

	w.push(w.packageFolder("story", "2", nil))
	w.merge("another version")
	w.hangup()
	c := w.conditionIs(v1.Staged, v1.False, v1.ReasonNoSpace)
	t.Log(c.Message)
	w.says(c.Message, w.node.packages)
	w.exits(3)
	w.same(list, w.list())
	if u := w.runs(service); u["InvocationID"] != before["InvocationID"] {
		t.Error("the service was restarted")
	}
	w.must(os.Remove(fill))
	w.converged()
	if a := w.answers("one"); a.Version != "2" {
		t.Errorf("answer: %+v", a)
	}
	w.exits(0)
}

// The disk for the agent's state is full: nothing is done that couldn't be
// remembered.
func TestStateDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Log("not root, so no file system can be mounted; TestUnwritableFolders has what is possible")
		return
	}
	w := newWorld(t, options{prepare: func(w *world) { smallDisk(w, w.node.state) }})
	w.startAgent()
	w.install()
	w.write(profile, "apiVersion: fleet.gpuaas.dev/v1\nkind: Profile\nname: story\ntasks: []\n")
	w.deliver("nothing yet")
	fill := filepath.Join(w.node.state, "fill")
	fillUp(t, fill)
	before := w.list()
	w.write(profile, w.storyProfile())
	w.merge("run the story")
	w.hangup()
	w.eventually("it is noticed", func() error {
		s, err := w.peek()
		if err == nil && (s.LastError == nil || s.LastError.Category != v1.ReasonNoSpace) {
			return fmt.Errorf("last error %+v", s.LastError)
		}
		return err
	})
	s, code := w.status()
	t.Logf("exit code %d, %s: %s", code, s.LastError.Element, s.LastError.Message)
	if code != 1 && code != 3 {
		t.Errorf("status exits %d", code)
	}
	w.same(before, w.list())
	w.gone(service)
	w.must(os.Remove(fill))
	w.hangup()
	w.converged()
	w.answers("one")
	w.exits(0)
}

// fillUp writes until nothing more goes.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; size /= 16 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
}

// Folders that can't be written: the message names them, the node stays as it was.
func TestUnwritableFolders(t *testing.T) {
	t.Parallel()
	for _, folder := range []string{"etc", "packages"} {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.install()
			path := filepath.Join(w.dir, "node", folder)
			w.must(os.Remove(path))
			w.must(writeFile(path, "in the way"))
			w.merge("run the story")
			before, units := w.list(w.node.units), w.unitList()
			r := w.agent("once")
			_, message, _ := strings.Cut(r.stderr, "gpuaas-node-agent: ")
			t.Log(message)
			if r.code != 1 {
				t.Errorf("once exits %d", r.code)
			}
			w.says(message, path)
			w.same(before, w.list(w.node.units))
			w.sameUnits(units, w.unitList())
			if got := contentOf(t, path); got != "in the way" {
				t.Errorf("%s: %q", path, got)
			}
			w.must(os.Remove(path))
			w.must(os.Mkdir(path, 0o755))
			if r := w.agent("once"); r.code != 0 {
				t.Errorf("once exits %d:\n%s", r.code, r.stderr)
			}
			w.answers("one")
			w.runs(service)
		})
	}
}
