package worktree_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/worktree"
)

var matter = []string{"fleet.yaml", "nodes", "trust/root.json", "absent"}

func create(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	err := worktree.Create(dir, map[string][]byte{
		"fleet.yaml": []byte("a\n"), "nodes/x/a.yaml": []byte("a\n"), "nodes/b.yaml": []byte("b\n"),
		"trust/root.json": []byte("{}"), ".gitignore": []byte("*.key\n"),
	}, "Begin", worktree.Author{Name: "A", Email: "a@example.com"}, time.Unix(1700000000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// git asks the real git, to see what a user would.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v (install git to run this test): %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestCreate(t *testing.T) {
	dir := create(t)
	if s := git(t, dir, "status", "--porcelain"); s != "" {
		t.Errorf("git sees changes right after: %s", s)
	}
	if got, want := git(t, dir, "log", "--format=%an %ae %s %D"), "A a@example.com Begin HEAD -> main"; got != want {
		t.Errorf("log is %q, want %q", got, want)
	}
	if got, want := git(t, dir, "ls-files"), ".gitignore\nfleet.yaml\nnodes/b.yaml\nnodes/x/a.yaml\ntrust/root.json"; got != want {
		t.Errorf("files are %q", got)
	}
	git(t, dir, "fsck", "--strict")
}

func TestUncommitted(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   []string
	}{
		{"nothing", func(*testing.T, string) {}, nil},
		{"touched only", func(t *testing.T, dir string) { write(t, dir, "fleet.yaml", "a\n") }, nil},
		{"edited", func(t *testing.T, dir string) { write(t, dir, "nodes/x/a.yaml", "other\n") }, []string{"nodes/x/a.yaml"}},
		{"new", func(t *testing.T, dir string) { write(t, dir, "nodes/c.yaml", "c\n") }, []string{"nodes/c.yaml"}},
		{"deleted", func(t *testing.T, dir string) { remove(t, dir, "trust/root.json"); remove(t, dir, "nodes/b.yaml") },
			[]string{"nodes/b.yaml", "trust/root.json"}},
		{"what doesn't matter", func(t *testing.T, dir string) { write(t, dir, "README.md", "x"); write(t, dir, "nodes/.gitkeep", "") }, nil},
		{"staged is not committed", func(t *testing.T, dir string) {
			write(t, dir, "fleet.yaml", "staged\n")
			git(t, dir, "add", "fleet.yaml")
		}, []string{"fleet.yaml"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := create(t)
			tc.change(t, dir)
			got, err := worktree.Uncommitted(dir, matter)
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %v, %v; want %v", got, err, tc.want)
			}
		})
	}
	t.Run("fleet in a folder of the repository", func(t *testing.T) {
		dir := create(t)
		got, err := worktree.Uncommitted(filepath.Join(dir, "nodes"), []string{"b.yaml", "x"})
		if err != nil || got != nil {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("not a repository", func(t *testing.T) {
		if _, err := worktree.Uncommitted(t.TempDir(), matter); err == nil {
			t.Error("no error")
		}
	})
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}
