package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteIn(t *testing.T) {
	path := t.TempDir()
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	for _, content := range []string{"one", "two, longer", ""} {
		if err := WriteIn(dir, "file", []byte(content), Options{Mode: 0o640}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(path, "file"))
		if err != nil || string(got) != content {
			t.Errorf("got %q, %v", got, err)
		}
		info, err := os.Lstat(filepath.Join(path, "file"))
		if err != nil || info.Mode() != 0o640 {
			t.Errorf("got %v, %v", info.Mode(), err)
		}
	}
	if err := os.Mkdir(filepath.Join(path, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteIn(dir, "folder", []byte("x"), Options{Mode: 0o600}); err == nil {
		t.Error("a folder was replaced by a file")
	}
	entries, err := os.ReadDir(path)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for range 2 {
		if err := RemoveIn(dir, "file"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Lstat(filepath.Join(path, "file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

// A symlink is replaced, not followed.
func TestWriteInReplacesSymlink(t *testing.T) {
	path, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(path, "file")); err != nil {
		t.Fatal(err)
	}
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	if err := WriteIn(dir, "file", []byte("new"), Options{Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(outside); err != nil || string(got) != "untouched" {
		t.Errorf("got %q, %v", got, err)
	}
	if info, err := os.Lstat(filepath.Join(path, "file")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("got %v, %v", info, err)
	}
}
