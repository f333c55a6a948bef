package publish_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/test/harness"
)

var when = time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))

// ownGit keeps the git configuration of whoever runs the tests out of them.
func ownGit(t *testing.T) {
	t.Helper()
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	t.Setenv("HOME", t.TempDir())
}

func change(parent string, files map[string]string, removed ...string) publish.Change {
	c := publish.Change{
		Parent: parent, Files: map[string][]byte{}, Removed: removed, Message: "publish\n",
		Author: publish.Author{Name: "Signer", Email: "signer@example.com"}, When: when,
	}
	for path, text := range files {
		c.Files[path] = []byte(text)
	}
	return c
}

func open(t *testing.T, dir string) *publish.Repository {
	t.Helper()
	r, err := publish.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func commit(t *testing.T, r *publish.Repository, c publish.Change) string {
	t.Helper()
	hash, err := r.Commit(c)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

func push(t *testing.T, r *publish.Repository, remote, hash, old string) {
	t.Helper()
	if err := r.Push(t.Context(), remote, "signed", hash, old); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, r *publish.Repository, remote string) string {
	t.Helper()
	hash, err := r.Fetch(t.Context(), remote, "signed")
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// clone makes a bare repository with a remote "origin".
func clone(t *testing.T, url string) (*publish.Repository, *harness.GitRepo) {
	t.Helper()
	repo := harness.NewGitRepo(t, "clone.git")
	repo.MustGit(t, "remote", "add", "origin", url)
	return open(t, repo.Dir), repo
}

func TestCommitIsWhatGitWouldWrite(t *testing.T) {
	ownGit(t)
	repo := harness.NewGitRepo(t, "r.git")
	r := open(t, repo.Dir)
	// The order of names and folders that git wants: a-b, a.b, a/..., a0.
	files := map[string]string{"a/x": "1", "a.b": "2", "a-b": "3", "a0": "4", "b/c/d/e": "5", "b/c/f": "6", "empty": ""}
	first := commit(t, r, change("", files))
	if err := r.SetBranch("signed", first, ""); err != nil {
		t.Fatal(err)
	}
	repo.MustGit(t, "fsck", "--strict", "--full")
	if got := repo.MustGit(t, "ls-tree", "-r", "--name-only", first); got != "a-b\na.b\na/x\na0\nb/c/d/e\nb/c/f\nempty" {
		t.Errorf("the commit has\n%s", got)
	}
	if got := repo.MustGit(t, "log", "-1", "--format=%an <%ae> %aI %cI %s", first); got != "Signer <signer@example.com> 2026-03-01T11:00:00+00:00 2026-03-01T11:00:00+00:00 publish" {
		t.Errorf("the commit is by %s", got)
	}
	second := commit(t, r, change(first, map[string]string{"b/c/d/e": "7", "a0/now/folder": "8"}, "a/x", "a0", "not/there", "b/c/f"))
	repo.MustGit(t, "update-ref", "refs/heads/second", second)
	repo.MustGit(t, "fsck", "--strict", "--full")
	if got := repo.MustGit(t, "ls-tree", "-r", "--name-only", second); got != "a-b\na.b\na0/now/folder\nb/c/d/e\nempty" {
		t.Errorf("the second commit has\n%s", got)
	}
	if got := repo.MustGit(t, "show", second+":b/c/d/e"); got != "7" {
		t.Errorf("b/c/d/e is %q", got)
	}
}

func TestCommitIsReproducible(t *testing.T) {
	ownGit(t)
	files := map[string]string{}
	for i := range 300 { // enough to be written as a pack
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = fmt.Sprint(i)
	}
	packed := harness.NewGitRepo(t, "1.git")
	one, other := open(t, packed.Dir), open(t, harness.NewGitRepo(t, "2.git").Dir)
	a, b := commit(t, one, change("", files)), commit(t, other, change("", files))
	if a != b {
		t.Errorf("the same change gave %s and %s", a, b)
	}
	packed.MustGit(t, "update-ref", "refs/heads/signed", a)
	packed.MustGit(t, "fsck", "--strict", "--full")
	if packs := packed.MustGit(t, "count-objects", "-v"); !strings.Contains(packs, "packs: 1") {
		t.Errorf("many objects, and no pack:\n%s", packs)
	}
	if again := commit(t, one, change(a, files)); again != a {
		t.Errorf("nothing changed, and yet a commit %s was made", again)
	}
	everything := slices.Collect(maps.Keys(files))
	emptied := commit(t, one, change(a, nil, everything...))
	tree, err := one.Tree(emptied)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := tree.Paths(""); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestCommitRefusesBadPaths(t *testing.T) {
	ownGit(t)
	r := open(t, harness.NewGitRepo(t, "r.git").Dir)
	for _, path := range []string{"", "/a", "a//b", "a/", "../a", "a/./b", ".git/config", "a/.GIT/x", "a\x00b"} {
		if _, err := r.Commit(change("", map[string]string{path: "x"})); err == nil {
			t.Errorf("%q was taken", path)
		}
	}
	if _, err := r.Commit(change("", map[string]string{"a": "x", "a/b": "y"})); err == nil {
		t.Error("a file that is a folder was taken")
	}
}

func TestTree(t *testing.T) {
	ownGit(t)
	r := open(t, harness.NewGitRepo(t, "r.git").Dir)
	hash := commit(t, r, change("", map[string]string{"metadata/root.json": "root", "targets/a/b.yaml": "b", "targets/a/c.yaml": "c"}))
	tree, err := r.Tree(hash)
	if err != nil {
		t.Fatal(err)
	}
	if data, ok := tree.ReadFile("metadata/root.json"); !ok || string(data) != "root" {
		t.Errorf("root.json is %q, %v", data, ok)
	}
	for _, path := range []string{"metadata", "metadata/x", "x/y", "metadata/root.json/x", ""} {
		if _, err := tree.Read(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading %q: %v", path, err)
		}
	}
	if paths, err := tree.Paths("targets"); err != nil || !slices.Equal(paths, []string{"targets/a/b.yaml", "targets/a/c.yaml"}) {
		t.Errorf("targets holds %v, %v", paths, err)
	}
	read := map[string]string{}
	err = tree.Each("", func(path string, data []byte) error { read[path] = string(data); return nil })
	if err != nil || len(read) != 3 || read["targets/a/c.yaml"] != "c" {
		t.Errorf("read %v, %v", read, err)
	}
	none, err := r.Tree("")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := none.ReadFile("a"); ok {
		t.Error("no commit has a file")
	}
	if _, err := r.Tree(strings.Repeat("1", 40)); err == nil {
		t.Error("a commit that doesn't exist was read")
	}
}

// everyRemote runs a test against each kind of remote.
func everyRemote(t *testing.T, test func(t *testing.T, remote *harness.GitRepo, url string)) {
	remotes(t, test)
	t.Run("ssh", func(t *testing.T) {
		ownGit(t)
		server := harness.NewSSHServer(t, harness.SSHOptions{})
		repo := harness.NewGitRepo(t, "remote.git")
		t.Setenv(publish.SSHKeyFileEnv, server.KeyFile)
		t.Setenv("SSH_KNOWN_HOSTS", server.KnownHostsFile)
		test(t, repo, server.URL(repo.Dir))
	})
}

// remotes runs a test against each kind of remote but SSH, which is slow.
func remotes(t *testing.T, test func(t *testing.T, remote *harness.GitRepo, url string)) {
	t.Run("local", func(t *testing.T) {
		ownGit(t)
		repo := harness.NewGitRepo(t, "remote.git")
		test(t, repo, repo.Dir)
	})
	t.Run("file URL", func(t *testing.T) {
		ownGit(t)
		repo := harness.NewGitRepo(t, "remote.git")
		test(t, repo, "file://"+repo.Dir)
	})
	t.Run("http", func(t *testing.T) {
		ownGit(t)
		server := harness.NewGitServer(t, harness.GitServerOptions{})
		repo := harness.NewGitRepo(t, filepath.Join(server.Root, "remote.git"))
		test(t, repo, server.URL+"/remote.git")
	})
}

func TestPublishTwice(t *testing.T) {
	everyRemote(t, func(t *testing.T, remote *harness.GitRepo, url string) {
		r, _ := clone(t, url)
		if tip := fetch(t, r, "origin"); tip != "" {
			t.Fatalf("an empty remote has %s", tip)
		}
		first := commit(t, r, change("", map[string]string{"a/1": "1", "b": "2"}))
		push(t, r, "origin", first, "")
		if got := remote.MustGit(t, "rev-parse", "refs/heads/signed"); got != first {
			t.Fatalf("the remote is at %s, not %s", got, first)
		}
		// Another clone goes on from there.
		other, _ := clone(t, url)
		if tip := fetch(t, other, "origin"); tip != first {
			t.Fatalf("fetched %s, not %s", tip, first)
		}
		second := commit(t, other, change(first, map[string]string{"a/1": "3"}))
		push(t, other, "origin", second, first)
		push(t, other, "origin", second, second) // nothing to do is no error
		remote.MustGit(t, "fsck", "--strict", "--full")
		if got := remote.MustGit(t, "show", "signed:a/1"); got != "3" {
			t.Errorf("a/1 is %q", got)
		}
		if at, err := other.RemoteBranch("origin", "signed"); err != nil || at != second {
			t.Errorf("origin/signed is at %s, %v", at, err)
		}
		// The first one doesn't know, and must not win.
		third := commit(t, r, change(first, map[string]string{"a/1": "4"}))
		err := r.Push(t.Context(), "origin", "signed", third, first)
		var conflict *publish.ConflictError
		if !errors.As(err, &conflict) || conflict.Found != second || conflict.Expected != first {
			t.Fatalf("a late push: %v", err)
		}
		if !strings.Contains(err.Error(), "run sign again") {
			t.Errorf("%q doesn't say what to do", err)
		}
		// Creating what exists is a conflict too.
		if err := r.Push(t.Context(), "origin", "signed", third, ""); !errors.As(err, &conflict) {
			t.Errorf("creating the branch again: %v", err)
		}
		if got := remote.MustGit(t, "rev-parse", "refs/heads/signed"); got != second {
			t.Errorf("the remote moved to %s", got)
		}
		// It fetches and does.
		if tip := fetch(t, r, "origin"); tip != second {
			t.Fatalf("fetched %s, not %s", tip, second)
		}
		push(t, r, "origin", commit(t, r, change(second, map[string]string{"a/1": "4"})), second)
		// Without ancestry, as after squashing.
		tip := fetch(t, other, "origin")
		orphan := commit(t, other, change("", map[string]string{"a/1": "4", "c": "5"}))
		push(t, other, "origin", orphan, tip)
		if tip := fetch(t, r, "origin"); tip != orphan {
			t.Errorf("fetched %s, not %s", tip, orphan)
		}
	})
}

func TestOfTwoPublishersOneWins(t *testing.T) {
	everyRemote(t, func(t *testing.T, remote *harness.GitRepo, url string) {
		first, _ := clone(t, url)
		base := commit(t, first, change("", map[string]string{"a": "0"}))
		push(t, first, "origin", base, "")
		const publishers = 4
		results := make([]error, publishers)
		hashes := make([]string, publishers)
		repos := make([]*publish.Repository, publishers)
		for i := range publishers {
			repos[i], _ = clone(t, url)
			fetch(t, repos[i], "origin")
			hashes[i] = commit(t, repos[i], change(base, map[string]string{"a": fmt.Sprint("by ", i)}))
		}
		var all sync.WaitGroup
		for i := range publishers {
			all.Go(func() { results[i] = repos[i].Push(t.Context(), "origin", "signed", hashes[i], base) })
		}
		all.Wait()
		now, won := remote.MustGit(t, "rev-parse", "refs/heads/signed"), 0
		for i, err := range results {
			var conflict *publish.ConflictError
			switch {
			case err == nil:
				won++
				if hashes[i] != now {
					t.Errorf("publisher %d was told it won, but the branch is elsewhere", i)
				}
			case !errors.As(err, &conflict):
				t.Errorf("publisher %d: %v", i, err)
			}
		}
		if won != 1 {
			t.Errorf("%d publishers won", won)
		}
	})
}

func TestForcedPushToOlder(t *testing.T) {
	remotes(t, func(t *testing.T, remote *harness.GitRepo, url string) {
		var commits []string
		for i := range 3 {
			commits = append(commits, remote.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{"a": fmt.Append(nil, i)}}))
		}
		r, _ := clone(t, url)
		if tip := fetch(t, r, "origin"); tip != commits[2] {
			t.Fatalf("fetched %s", tip)
		}
		remote.MustGit(t, "update-ref", "refs/heads/signed", commits[0])
		if tip := fetch(t, r, "origin"); tip != commits[0] {
			t.Fatalf("fetched %s after the forced push", tip)
		}
		remote.MustGit(t, "update-ref", "-d", "refs/heads/signed")
		if tip := fetch(t, r, "origin"); tip != "" {
			t.Fatalf("fetched %s of a deleted branch", tip)
		}
	})
}

// git runs git itself in a folder.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestWorktreesAndShallowClones(t *testing.T) {
	remotes(t, func(t *testing.T, remote *harness.GitRepo, url string) {
		remote.MustCommit(t, harness.GitCommit{Branch: "main", Files: map[string][]byte{"fleet.yaml": []byte("1")}})
		for i := range 3 {
			remote.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{"a": fmt.Append(nil, i), "b/c": []byte("same")}})
		}
		if filepath.IsAbs(url) {
			url = "file://" + url // a plain path can't be cloned shallow
		}
		dir := filepath.Join(t.TempDir(), "clone")
		git(t, t.TempDir(), "clone", "--quiet", "--depth=1", "--branch=main", url, dir)
		linked := filepath.Join(t.TempDir(), "linked")
		git(t, dir, "worktree", "add", "--quiet", "-b", "work", linked)
		sub := filepath.Join(linked, "sub")
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, at := range []string{dir, linked, sub} {
			r := open(t, at)
			tip := fetch(t, r, "origin")
			if tip != remote.MustGit(t, "rev-parse", "signed") {
				t.Fatalf("%s: fetched %s", at, tip)
			}
			next := commit(t, r, change(tip, map[string]string{"a": at}))
			old, err := r.Branch("signed")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.SetBranch("signed", next, old); err != nil {
				t.Fatal(err)
			}
			push(t, r, "origin", next, tip)
			if got := git(t, dir, "show", "signed:a"); got != at {
				t.Errorf("the local branch has %q", got)
			}
			if got := git(t, at, "status", "--porcelain"); got != "" {
				t.Errorf("%s has changes: %s", at, got)
			}
		}
		remote.MustGit(t, "fsck", "--strict", "--full")
		if got := remote.MustGit(t, "show", "signed:b/c"); got != "same" {
			t.Errorf("b/c is %q", got)
		}
	})
}

func TestSetBranch(t *testing.T) {
	ownGit(t)
	repo := harness.NewGitRepo(t, "r.git")
	r := open(t, repo.Dir)
	first := commit(t, r, change("", map[string]string{"a": "1"}))
	second := commit(t, r, change(first, map[string]string{"a": "2"}))
	if err := r.SetBranch("signed", first, ""); err != nil {
		t.Fatal(err)
	}
	repo.MustGit(t, "pack-refs", "--all")
	var conflict *publish.ConflictError
	if err := r.SetBranch("signed", second, ""); !errors.As(err, &conflict) {
		t.Errorf("moving what should not exist: %v", err)
	}
	if err := r.SetBranch("signed", second, first); err != nil {
		t.Error(err)
	}
	if err := r.SetBranch("signed", first, first); !errors.As(err, &conflict) {
		t.Errorf("moving from elsewhere: %v", err)
	}
	if err := r.SetBranch("main", first, ""); err == nil || !strings.Contains(err.Error(), "checked out") {
		t.Errorf("moving HEAD's branch: %v", err)
	}
	if at, err := r.Resolve("signed"); err != nil || at != second {
		t.Errorf("signed is %s, %v", at, err)
	}
}
