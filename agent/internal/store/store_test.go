package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/store"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// usual is an archive with everything that a package may hold.
func usual(t testing.TB) []byte {
	return archive(t, dir("./"), program("bin/tool", "#!"), file("./etc/conf", "a=1\n"), dir("bin/"), dir("empty"),
		link("bin/alias", "tool"), link("conf", "etc/conf"), link("lib", "deep/er/lib"), file("deep/er/lib/x.so", ""))
}

const usualTree = `bin drwxr-xr-x
bin/alias Lrwxrwxrwx -> tool
bin/tool -rwxr-xr-x "#!"
conf Lrwxrwxrwx -> etc/conf
deep drwxr-xr-x
deep/er drwxr-xr-x
deep/er/lib drwxr-xr-x
deep/er/lib/x.so -rw-r--r-- ""
empty drwxr-xr-x
etc drwxr-xr-x
etc/conf -rw-r--r-- "a=1\n"
lib Lrwxrwxrwx -> deep/er/lib
`

func TestUnpackEveryCompression(t *testing.T) {
	old := unix.Umask(0o077) // the service's umask must not show
	defer unix.Umask(old)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data := usual(t)
	for name, l := range map[string]store.Layer{
		"tar":      layer(t, plainTar, data),
		"gzip":     layer(t, gzipTar, gzipped(t, data)),
		"zstd":     layer(t, zstdTar, zstded(t, data)),
		"our type": layer(t, "application/vnd.gpuaas.package.layer.v1.tar+gzip", gzipped(t, data)),
		"members":  layer(t, gzipTar, append(gzipped(t, data[:1000]), gzipped(t, data[1000:])...)),
	} {
		for _, child := range []string{"", executable} {
			s, root := open(t, func(o *store.Options) { o.Executable = child })
			p := pkg(name, l)
			unpack(t, s, p)
			if got := tree(t, s.VersionPath("thing", p.Digest)); got != usualTree {
				t.Errorf("%s:\n%s", name, got)
			}
			if got := tree(t, filepath.Join(root, ".staging")); got != "" {
				t.Errorf("%s left in staging:\n%s", name, got)
			}
			if state, err := s.State("thing"); err != nil || !state.Versions[p.Digest] || state.Current != "" {
				t.Errorf("%s: state %+v, %v", name, state, err)
			}
		}
	}
}

func TestLayersAreLaidOverEachOther(t *testing.T) {
	s, _ := open(t, nil)
	p := pkg("x", layer(t, plainTar, archive(t, file("a/one", "1"), link("first", "a/two"))), layer(t, plainTar, archive(t, dir("a"), file("a/two", "2"))))
	unpack(t, s, p)
	want := "a drwxr-xr-x\na/one -rw-r--r-- \"1\"\na/two -rw-r--r-- \"2\"\nfirst Lrwxrwxrwx -> a/two\n"
	if got := tree(t, s.VersionPath("thing", p.Digest)); got != want {
		t.Errorf("got\n%s", got)
	}
	twice := pkg("y", layer(t, plainTar, archive(t, file("a", "1"))), layer(t, plainTar, archive(t, file("a", "2"))))
	wantError(t, s.Unpack(t.Context(), twice), v1.ReasonPackageInvalid, false, "layer 1", "twice")
}

func TestUnpackTwiceChangesNothing(t *testing.T) {
	s, _ := open(t, nil)
	p := pkg("x", layer(t, plainTar, usual(t)))
	unpack(t, s, p)
	before, err := os.Stat(s.VersionPath("thing", p.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p.Layers[0].Path); err != nil { // it isn't even looked at
		t.Fatal(err)
	}
	unpack(t, s, p)
	after, err := os.Stat(s.VersionPath("thing", p.Digest))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("another folder: %v", err)
	}
}

func TestVersionWithoutListIsUnpackedAgain(t *testing.T) {
	s, _ := open(t, nil)
	p := pkg("x", layer(t, plainTar, usual(t)))
	unpack(t, s, p)
	folder := s.VersionPath("thing", p.Digest)
	if err := os.Remove(folder + ".files"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "bin/tool"), []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if state, err := s.State("thing"); err != nil || len(state.Versions) != 0 {
		t.Errorf("it counts as complete: %+v, %v", state, err)
	}
	unpack(t, s, p)
	if got := tree(t, folder); got != usualTree {
		t.Errorf("got\n%s", got)
	}
}

func TestUnpackAtTheSameTime(t *testing.T) {
	_, root := open(t, nil)
	p := pkg("x", layer(t, plainTar, usual(t)))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := store.Open(store.Options{Root: root})
			if err == nil {
				err = s.Unpack(t.Context(), p)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := store.Open(store.Options{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	if got := tree(t, s.VersionPath("thing", p.Digest)); got != usualTree {
		t.Errorf("got\n%s", got)
	}
	if got := tree(t, filepath.Join(root, ".staging")); got != "" {
		t.Errorf("left in staging:\n%s", got)
	}
}

func TestActivate(t *testing.T) {
	s, root := open(t, nil)
	one, two := pkg("one", layer(t, plainTar, usual(t))), pkg("two", layer(t, plainTar, archive(t, file("x", "2"))))
	wantError(t, s.Activate("thing", one.Digest), v1.ReasonInternal, true, "not unpacked")
	unpack(t, s, one)
	unpack(t, s, two)
	for _, p := range []store.Package{one, two, two, one} {
		if err := s.Activate("thing", p.Digest); err != nil {
			t.Fatal(err)
		}
		state, err := s.State("thing")
		if err != nil || state.Current != p.Digest || len(state.Versions) != 2 {
			t.Errorf("state %+v, %v", state, err)
		}
		target, err := os.Readlink(s.Path("thing"))
		if err != nil || target != "versions/"+filepath.Base(s.VersionPath("thing", p.Digest)) {
			t.Errorf("link to %s, %v", target, err)
		}
	}
	// Nothing but the link and the versions.
	entries, err := os.ReadDir(filepath.Join(root, "thing"))
	if err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v", entries, err)
	}
}

func TestLinkThatSomebodyElseMade(t *testing.T) {
	s, root := open(t, nil)
	p := pkg("one", layer(t, plainTar, usual(t)))
	unpack(t, s, p)
	current := s.Path("thing")
	for name, target := range map[string]string{
		"dangling":  "versions/sha256-" + strings.Repeat("0", 64),
		"elsewhere": "/etc",
		"absolute":  s.VersionPath("thing", p.Digest),
		"not ours":  "versions/../versions/" + filepath.Base(s.VersionPath("thing", p.Digest)),
	} {
		_ = os.Remove(current)
		if err := os.Symlink(target, current); err != nil {
			t.Fatal(err)
		}
		if state, err := s.State("thing"); err != nil || state.Current != "" {
			t.Errorf("%s: current is %q, %v", name, state.Current, err)
		}
		if err := s.Activate("thing", p.Digest); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(current); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(current, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Activate("thing", p.Digest), v1.ReasonInternal, true, "didn't make it")
	if _, err := os.Stat(filepath.Join(root, "thing/current/mine")); err != nil {
		t.Errorf("somebody's folder is gone: %v", err)
	}
}

func TestCheckFindsEveryChange(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(dir string) error
		want   string
		deep   bool // only found by reading the content
	}{
		"content": {func(d string) error { return os.WriteFile(d+"/etc/conf", []byte("a=2\n"), 0o600) }, "etc/conf content", true},
		"size":    {func(d string) error { return os.WriteFile(d+"/etc/conf", []byte("a"), 0o600) }, "etc/conf size", false},
		"mode":    {func(d string) error { return os.Chmod(d+"/etc/conf", 0o666) }, "etc/conf mode", false},
		"setuid":  {func(d string) error { return os.Chmod(d+"/bin/tool", 0o755|fs.ModeSetuid) }, "bin/tool mode", false},
		"folder":  {func(d string) error { return os.Chmod(d+"/bin", 0o777) }, "bin mode", false},
		"gone":    {func(d string) error { return os.Remove(d + "/etc/conf") }, "etc/conf missing", false},
		"added":   {func(d string) error { return os.WriteFile(d+"/bin/new", nil, 0o600) }, "bin/new added", false},
		"relinked": {func(d string) error {
			return errors.Join(os.Remove(d+"/bin/alias"), os.Symlink("/bin/sh", d+"/bin/alias"))
		}, "bin/alias link", false},
		"type": {func(d string) error {
			return errors.Join(os.Remove(d+"/bin/tool"), unix.Mkfifo(d+"/bin/tool", 0o755))
		}, "bin/tool type", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t, nil)
			p := pkg("x", layer(t, plainTar, usual(t)))
			unpack(t, s, p)
			if diffs, err := s.Check("thing", p.Digest, true); err != nil || len(diffs) != 0 {
				t.Fatalf("fresh: %v, %v", diffs, err)
			}
			if err := tc.change(s.VersionPath("thing", p.Digest)); err != nil {
				t.Fatal(err)
			}
			for _, content := range []bool{false, true} {
				diffs, err := s.Check("thing", p.Digest, content)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, d := range diffs {
					got = append(got, d.Path+" "+d.What)
				}
				want := tc.want
				if tc.deep && !content {
					want = ""
				}
				if strings.Join(got, " ") != want {
					t.Errorf("content %v: got %q, want %q", content, got, want)
				}
			}
			err := s.Activate("thing", p.Digest)
			if tc.deep {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantError(t, err, v1.ReasonDigestMismatch, true, "changed it", "unpacked again")
			if state, err := s.State("thing"); err != nil || state.Versions[p.Digest] || state.Current != "" {
				t.Errorf("the changed version still counts: %+v, %v", state, err)
			}
			unpack(t, s, p)
			if err := s.Activate("thing", p.Digest); err != nil {
				t.Errorf("unpacked again: %v", err)
			}
		})
	}
}

func TestFilesListsDigests(t *testing.T) {
	s, _ := open(t, nil)
	p := pkg("x", layer(t, plainTar, usual(t)))
	unpack(t, s, p)
	l, err := s.Files("thing", p.Digest)
	if err != nil || l.Name != "thing" || l.Digest != p.Digest || len(l.Entries) != 12 {
		t.Fatalf("%+v, %v", l, err)
	}
	want := store.Entry{Path: "bin/tool", Type: "file", Mode: "0755", Size: 2, Digest: digest.Of([]byte("#!"))}
	if got := l.Entries[2]; got != want {
		t.Errorf("got %+v", got)
	}
}

func TestReadFile(t *testing.T) {
	s, _ := open(t, nil)
	p := pkg("x", layer(t, plainTar, usual(t)))
	unpack(t, s, p)
	for _, name := range []string{"etc/conf", "conf"} {
		if data, err := s.ReadFile("thing", p.Digest, name, 4); err != nil || string(data) != "a=1\n" {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	folder := s.VersionPath("thing", p.Digest)
	if err := errors.Join(os.Symlink("/etc/passwd", folder+"/escape"), os.Symlink("../../..", folder+"/up"), unix.Mkfifo(folder+"/pipe", 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etc", "escape", "up/x", "../../current", "/etc/passwd", "pipe", "", "etc/conf/x"} {
		if data, err := s.ReadFile("thing", p.Digest, name, 1<<20); err == nil {
			t.Errorf("%q gave %q", name, data)
		}
	}
	if _, err := s.ReadFile("thing", p.Digest, "etc/conf", 3); err == nil || !strings.Contains(err.Error(), "larger than 3") {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := s.ReadFile("thing", p.Digest, "absent", 3); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	for _, bad := range []string{"", "../thing", "Thing", ".staging", "a/b", strings.Repeat("x", 200)} {
		if _, err := s.ReadFile(bad, p.Digest, "conf", 3); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
		if _, err := s.State(bad); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
		if err := s.Remove(bad); err == nil {
			t.Errorf("name %q was accepted", bad)
		}
	}
}

func TestRemoveAndCollect(t *testing.T) {
	s, root := open(t, nil)
	if err := s.Remove("thing"); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
	var all []store.Package
	for _, seed := range []string{"a", "b", "c", "d"} {
		p := pkg(seed, layer(t, plainTar, usual(t)))
		unpack(t, s, p)
		all = append(all, p)
	}
	if err := s.Activate("thing", all[2].Digest); err != nil {
		t.Fatal(err)
	}
	other := pkg("o", layer(t, plainTar, usual(t)))
	other.Name = "other"
	unpack(t, s, other)
	wantError(t, s.RemoveVersion("thing", all[2].Digest), v1.ReasonInternal, false, "current")

	removed, err := s.Collect(map[string][]string{"thing": {all[1].Digest}})
	if err != nil || len(removed) != 2 || !strings.HasPrefix(removed[0], "thing@sha256:") || removed[0] > removed[1] {
		t.Errorf("removed %v, %v", removed, err)
	}
	state, err := s.State("thing")
	if err != nil || len(state.Versions) != 2 || !state.Versions[all[1].Digest] || state.Current != all[2].Digest {
		t.Errorf("left %+v, %v", state, err)
	}
	if err := s.Remove("thing"); err != nil {
		t.Fatal(err)
	}
	if state, err := s.State("other"); err != nil || len(state.Versions) != 1 {
		t.Errorf("other: %+v, %v", state, err)
	}
	if err := s.Remove("other"); err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, root)
}

func TestOpenLooksBeforeItCleans(t *testing.T) {
	s, root := open(t, nil)
	unpack(t, s, pkg("x", layer(t, plainTar, usual(t))))
	idle, busy := filepath.Join(root, ".staging/idle"), filepath.Join(root, ".staging/busy")
	for _, d := range []string{idle, busy} {
		if err := os.MkdirAll(d+"/tree", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(busy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(store.Options{Root: root, ReadOnly: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(idle); err != nil {
		t.Errorf("somebody who only looks has removed it: %v", err)
	}
	if _, err := store.Open(store.Options{Root: root}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(idle); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the leftover is still there: %v", err)
	}
	if _, err := os.Stat(busy); err != nil {
		t.Errorf("work of another process was removed: %v", err)
	}
	if _, err := store.Open(store.Options{Root: "relative"}); err == nil {
		t.Error("a relative root was accepted")
	}
}
