package source_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/source"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

var wanted = []string{"metadata/*.root.json", "metadata/timestamp.json", "metadata/fleet.json", "targets/nodes/fleet/ab/me.yaml"}

// branch is the content of a signed branch: everything wanted, and others.
func branch(version int) map[string][]byte {
	files := map[string][]byte{
		"metadata/root.json":      []byte("root"),
		"metadata/1.root.json":    []byte("root 1"),
		"metadata/timestamp.json": fmt.Appendf(nil, "timestamp %d", version),
		"metadata/other.json":     []byte("other"),
		"README.md":               []byte("read me"),
		"targets/root.json":       []byte("not this one"),
	}
	for i := range 40 {
		files[fmt.Sprintf("targets/nodes/fleet/%02x/node-%d.yaml", i, i)] = fmt.Appendf(nil, "%s\nnode: %d\nversion: %d\n", strings.Repeat("the same in all\n", 20), i, version)
	}
	files["targets/nodes/fleet/ab/me.yaml"] = []byte("me 1")
	return files
}

// want is what a snapshot of branch(version) holds.
func want(version int) map[string]string {
	return map[string]string{
		"metadata/1.root.json": "root 1", "metadata/timestamp.json": fmt.Sprintf("timestamp %d", version),
		"targets/nodes/fleet/ab/me.yaml": "me 1",
	}
}

// place is one way to reach a repository.
type place struct {
	repo   *harness.GitRepo
	config source.Config
}

// everyPlace runs a test for every way to reach a repository.
func everyPlace(t *testing.T, test func(t *testing.T, p place)) {
	places(t, test)
	t.Run("http that refuses trees' filter", func(t *testing.T) {
		p := overHTTP(t, harness.GitServerOptions{})
		p.repo.MustGit(t, "config", "uploadpackfilter.allow", "false")
		test(t, p)
	})
	t.Run("ssh", func(t *testing.T) { test(t, overSSH(t, harness.SSHOptions{AcceptProtocol: true})) })
	t.Run("ssh version 0", func(t *testing.T) { test(t, overSSH(t, harness.SSHOptions{})) })
}

// places runs a test for the ways that differ most.
func places(t *testing.T, test func(t *testing.T, p place)) {
	t.Run("http", func(t *testing.T) { test(t, overHTTP(t, harness.GitServerOptions{})) })
	t.Run("http without filters", func(t *testing.T) {
		p := overHTTP(t, harness.GitServerOptions{})
		p.repo.MustGit(t, "config", "uploadpack.allowFilter", "false")
		test(t, p)
	})
	t.Run("http version 0", func(t *testing.T) { test(t, overHTTP(t, harness.GitServerOptions{V0Only: true})) })
	t.Run("path", func(t *testing.T) {
		repo := harness.NewGitRepo(t, "r.git")
		test(t, place{repo, config(t, repo.Dir)})
	})
}

func config(t *testing.T, url string) source.Config {
	return source.Config{URL: url, Branch: "signed", RepoDir: filepath.Join(t.TempDir(), "repo"), Wanted: wanted}
}

func overHTTP(t *testing.T, opts harness.GitServerOptions) place {
	t.Helper()
	server := harness.NewGitServer(t, opts)
	repo := harness.NewGitRepo(t, filepath.Join(server.Root, "r.git"))
	return place{repo, config(t, server.URL+"/r.git")}
}

func overSSH(t *testing.T, opts harness.SSHOptions) place {
	t.Helper()
	server := harness.NewSSHServer(t, opts)
	repo := harness.NewGitRepo(t, "r.git")
	c := config(t, server.URL(repo.Dir))
	c.SSHKeyFile, c.KnownHostsFile = server.KeyFile, server.KnownHostsFile
	return place{repo, c}
}

func newSource(t *testing.T, c source.Config) *source.Source {
	t.Helper()
	s, err := source.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// poll polls and wants a snapshot of a commit with given files.
func poll(t *testing.T, s *source.Source, known, commit string, files map[string]string) {
	t.Helper()
	snapshot, err := s.Poll(t.Context(), known)
	if err != nil {
		t.Fatal(err)
	}
	if snapshot == nil {
		t.Fatal("nothing new")
	}
	if snapshot.Commit != commit {
		t.Errorf("commit %s, want %s", snapshot.Commit, commit)
	}
	var paths []string
	for path := range files {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	if !slices.Equal(snapshot.Paths(), paths) {
		t.Errorf("files %v, want %v", snapshot.Paths(), paths)
	}
	for path, text := range files {
		if data, ok := snapshot.ReadFile(path); !ok || string(data) != text {
			t.Errorf("%s is %q, %v; want %q", path, data, ok, text)
		}
	}
}

func nothingNew(t *testing.T, s *source.Source, known string) {
	t.Helper()
	if snapshot, err := s.Poll(t.Context(), known); err != nil || snapshot != nil {
		t.Fatalf("got %v, %v; want nothing new", snapshot, err)
	}
}

// refused polls and wants an error.
func refused(t *testing.T, s *source.Source, known string, reason v1.Reason, says string) {
	t.Helper()
	snapshot, err := s.Poll(t.Context(), known)
	var e *host.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, %v; want a host.Error", snapshot, err)
	}
	if e.Component != "source" || e.Reason != reason || !e.Retry || !strings.Contains(err.Error(), says) {
		t.Errorf("error of %s: %s, retry %v: %v\nwant %s and %q", e.Component, e.Reason, e.Retry, err, reason, says)
	}
}

func commit(t *testing.T, p place, version int) string {
	t.Helper()
	return p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(version)})
}

func TestLifeOfABranch(t *testing.T) {
	everyPlace(t, func(t *testing.T, p place) {
		p.repo.MustCommit(t, harness.GitCommit{Branch: "signed-too", Files: map[string][]byte{"x": []byte("y")}})
		s := newSource(t, p.config)
		refused(t, s, "", v1.ReasonSourceEmpty, `"signed"`)

		first := commit(t, p, 1)
		poll(t, s, "", first, want(1))
		nothingNew(t, s, first)
		poll(t, s, "", first, want(1)) // as after a restart
		poll(t, newSource(t, p.config), "", first, want(1))

		second := commit(t, p, 2)
		p.repo.MustGit(t, "repack", "-a", "-d", "-q")
		poll(t, s, first, second, want(2))
		third := p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{"targets/nodes/fleet/07/node-7.yaml": []byte("another")}})
		poll(t, s, second, third, want(2))
		fourth := p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{
			"targets/nodes/fleet/ab/me.yaml": nil, "metadata/2.root.json": []byte("root 2"), "metadata/fleet.json": []byte("fleet"),
		}})
		now := want(2)
		delete(now, "targets/nodes/fleet/ab/me.yaml")
		now["metadata/2.root.json"], now["metadata/fleet.json"] = "root 2", "fleet"
		poll(t, s, third, fourth, now)

		// Forced back, with what was thrown away gone from the server.
		p.repo.MustGit(t, "update-ref", "refs/heads/signed", first)
		p.repo.MustGit(t, "reflog", "expire", "--expire=now", "--all")
		p.repo.MustGit(t, "gc", "--quiet", "--prune=now")
		poll(t, s, fourth, first, want(1))
		nothingNew(t, s, first)

		orphan := p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(5), Orphan: true})
		poll(t, s, first, orphan, want(5))

		p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{"README.md": []byte("nothing else")}, Orphan: true})
		refused(t, s, orphan, v1.ReasonSourceEmpty, "no signed metadata")
		p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Orphan: true})
		refused(t, s, orphan, v1.ReasonSourceEmpty, "no signed metadata")
		p.repo.MustGit(t, "update-ref", "-d", "refs/heads/signed")
		refused(t, s, orphan, v1.ReasonSourceEmpty, "doesn't exist")
		back := commit(t, p, 6)
		poll(t, s, orphan, back, want(6))
	})
}

// TestManyCommitsBehind leaves so much between two polls that it isn't one step.
func TestManyCommitsBehind(t *testing.T) {
	everyPlace(t, func(t *testing.T, p place) {
		first := commit(t, p, 1)
		s := newSource(t, p.config)
		poll(t, s, "", first, want(1))
		files := map[string][]byte{}
		for i := range 300 {
			files[fmt.Sprintf("targets/nodes/fleet/x%d/y", i)] = fmt.Append(nil, i)
		}
		p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: files})
		last := commit(t, p, 9)
		poll(t, s, first, last, want(9))
	})
}

func TestDamagedCache(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		s := newSource(t, p.config)
		known := commit(t, p, 1)
		poll(t, s, "", known, want(1))
		cache := filepath.Join(p.config.RepoDir, "signed.pack")
		whole, err := os.ReadFile(cache)
		if errors.Is(err, os.ErrNotExist) && filepath.IsAbs(p.config.URL) {
			return // nothing is kept of what is here anyway
		}
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range map[string][]byte{
			"empty": {}, "garbage": []byte("what is this?"), "cut": whole[:len(whole)/2], "cut short": whole[:len(whole)-1],
			"flipped": append(append(slices.Clone(whole[:40]), whole[40]^1), whole[41:]...),
		} {
			if err := os.WriteFile(cache, data, 0o600); err != nil {
				t.Fatal(err)
			}
			poll(t, s, "", known, want(1))
			if again, err := os.ReadFile(cache); err != nil || len(again) != len(whole) {
				t.Errorf("%s: the cache has %d bytes, %v", name, len(again), err)
			}
		}
		if err := os.RemoveAll(p.config.RepoDir); err != nil {
			t.Fatal(err)
		}
		poll(t, s, "", known, want(1))
		next := commit(t, p, 2)
		if err := os.WriteFile(cache, whole[:50], 0o600); err != nil {
			t.Fatal(err)
		}
		poll(t, s, known, next, want(2))
	})
}

func TestNothingIsLeftBehind(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		s := newSource(t, p.config)
		known := ""
		for version := range 3 {
			next := commit(t, p, version)
			poll(t, s, known, next, want(version))
			known = next
		}
		entries, err := os.ReadDir(p.config.RepoDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "signed.pack" {
				t.Errorf("%s was left", e.Name())
			}
		}
	})
}

func TestSymlinksAndFoldersAreNoFiles(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		work := t.TempDir()
		for _, step := range [][]string{
			{"--git-dir", p.repo.Dir, "--work-tree", work, "add", "-A"},
			{"--git-dir", p.repo.Dir, "--work-tree", work, "commit", "-q", "-m", "links"},
			{"update-ref", "refs/heads/signed", "refs/heads/main"},
		} {
			if step[0] != "update-ref" {
				for _, dir := range []string{"metadata/fleet.json", "metadata/7.root.json"} {
					if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				for path, text := range map[string]string{"metadata/1.root.json": "root 1", "metadata/fleet.json/x": "x", "metadata/7.root.json/x": "x"} {
					if err := os.WriteFile(filepath.Join(work, path), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				_ = os.Symlink("1.root.json", filepath.Join(work, "metadata/timestamp.json"))
			}
			p.repo.MustGit(t, step...)
		}
		tip := p.repo.MustGit(t, "rev-parse", "signed")
		poll(t, newSource(t, p.config), "", tip, map[string]string{"metadata/1.root.json": "root 1"})
	})
}

func TestLimits(t *testing.T) {
	places(t, func(t *testing.T, p place) {
		files := branch(1)
		files["targets/nodes/fleet/ab/me.yaml"] = []byte(strings.Repeat("0123456789abcdef\n", 5000))
		tip := p.repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: files})
		for name, limits := range map[string]source.Limits{
			"file":  {File: 20_000},
			"total": {Total: 30_000},
			"files": {Files: 2},
		} {
			t.Run(name, func(t *testing.T) {
				c := p.config
				c.Limits = limits
				refused(t, newSource(t, c), "", v1.ReasonSourceLimits, "limit")
			})
		}
		now := want(1)
		now["targets/nodes/fleet/ab/me.yaml"] = string(files["targets/nodes/fleet/ab/me.yaml"])
		poll(t, newSource(t, p.config), "", tip, now)
	})
}
