package source_test

import (
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

func TestLocalForms(t *testing.T) {
	repo := harness.NewGitRepo(t, "r.git")
	tip := repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	repo.MustGit(t, "pack-refs", "--all")
	poll(t, newSource(t, config(t, "file://"+repo.Dir)), "", tip, want(1))

	linked := filepath.Join(t.TempDir(), "linked")
	repo.MustGit(t, "worktree", "add", "-q", "--detach", linked, tip)
	poll(t, newSource(t, config(t, linked)), "", tip, want(1))
}

func TestLocalTrouble(t *testing.T) {
	refused(t, newSource(t, config(t, filepath.Join(t.TempDir(), "none.git"))), "", v1.ReasonSourceUnreachable, "check source.url")

	repo := harness.NewGitRepo(t, "r.git")
	repo.MustCommit(t, harness.GitCommit{Branch: "signed", Files: branch(1)})
	packs, err := filepath.Glob(filepath.Join(repo.Dir, "objects", "??"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(repo.Dir, "objects", "pack", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(packs, more...) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	refused(t, newSource(t, config(t, repo.Dir)), "", v1.ReasonSourceUnreachable, "object")
}
