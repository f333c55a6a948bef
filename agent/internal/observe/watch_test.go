package observe

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

func newTestWatcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := NewWatcher(t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	at := func(name ...string) string { return filepath.Join(append([]string{dir}, name...)...) }
	for _, d := range []string{"d", "pkg"} {
		must(t, os.Mkdir(at(d), 0o755))
	}
	put(t, at("d", "file"), "one")
	must(t, os.Symlink("versions/one", at("pkg", "current")))
	missing := at("not", "yet", "there")
	w := newTestWatcher(t)
	w.Set([]string{at("d", "file"), at("pkg", "current"), missing})
	for _, test := range []struct {
		name string
		do   func()
		want string
	}{
		{"edited in place", func() { put(t, at("d", "file"), "two") }, at("d", "file")},
		{"replaced", func() { put(t, at("d", "new"), "three"); must(t, os.Rename(at("d", "new"), at("d", "file"))) }, at("d", "file")},
		{"edited after it was replaced", func() { put(t, at("d", "file"), "four") }, at("d", "file")},
		{"mode changed", func() { must(t, os.Chmod(at("d", "file"), 0o600)) }, at("d", "file")},
		{"removed", func() { must(t, os.Remove(at("d", "file"))) }, at("d", "file")},
		{"made again", func() { put(t, at("d", "file"), "five") }, at("d", "file")},
		{"link swung", func() {
			must(t, os.Symlink("versions/two", at("pkg", "next")))
			must(t, os.Rename(at("pkg", "next"), at("pkg", "current")))
		}, at("pkg", "current")},
		{"folder came, with file", func() { must(t, os.MkdirAll(at("not", "yet"), 0o755)); put(t, missing, "one") }, missing},
		{"edited in the new folder", func() { put(t, missing, "two") }, missing},
		{"folder removed", func() { must(t, os.RemoveAll(at("not"))) }, missing},
		{"folder came again", func() { must(t, os.MkdirAll(at("not", "yet"), 0o755)); put(t, missing, "three") }, missing},
		{"edited there", func() { put(t, missing, "four") }, missing},
		{"folder moved away", func() { must(t, os.Rename(at("d"), at("e"))) }, at("d", "file")},
		{"another folder in its place", func() { must(t, os.Mkdir(at("d"), 0o755)); put(t, at("d", "file"), "six") }, at("d", "file")},
		{"edited in that one", func() { put(t, at("d", "file"), "seven") }, at("d", "file")},
	} {
		test.do()
		expect(t, w, test.name, test.want)
	}
	put(t, at("d", "neighbour"), "x")
	put(t, at("e", "file"), "x")
	silent(t, w, "other files")
	w.Set([]string{missing})
	put(t, at("d", "file"), "eight")
	silent(t, w, "a path that is not watched any more")
	if got := w.notify.WatchList(); !slices.Equal(got, []string{at("not", "yet")}) {
		t.Errorf("watched are %v", got)
	}
}

// Many changes that nobody receives yet are one event.
func TestWatcherMerges(t *testing.T) {
	dir := t.TempDir()
	w := newTestWatcher(t)
	var want []string
	for _, name := range []string{"a", "b", "c"} {
		want = append(want, filepath.Join(dir, name))
	}
	w.Set(want)
	for range 50 {
		for _, p := range want {
			put(t, p, time.Now().String())
		}
	}
	time.Sleep(3 * gather)
	if got := <-w.Events(); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	silent(t, w, "what was received already")
}

func TestWatcherOverflow(t *testing.T) {
	dir := t.TempDir()
	w := newTestWatcher(t)
	w.Set([]string{filepath.Join(dir, "a")})
	put(t, filepath.Join(dir, "a"), "x")
	w.notify.Errors <- fsnotify.ErrEventOverflow
	for {
		// The event of the file may come before.
		if got := <-w.Events(); got == nil {
			break
		}
	}
	put(t, filepath.Join(dir, "a"), "y")
	expect(t, w, "after the overflow", filepath.Join(dir, "a"))
}

func expect(t *testing.T, w *Watcher, name, path string) {
	t.Helper()
	select {
	case got := <-w.Events():
		if !slices.Contains(got, path) {
			t.Errorf("%s: got %v", name, got)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("%s: no event", name)
	}
	// Several steps of one change may fall on both sides of a batch.
	for {
		select {
		case <-w.Events():
			continue
		case <-time.After(2 * gather):
		}
		return
	}
}

func silent(t *testing.T, w *Watcher, name string) {
	t.Helper()
	select {
	case got := <-w.Events():
		t.Errorf("%s: got %v", name, got)
	case <-time.After(3 * gather):
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(content), 0o644))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
