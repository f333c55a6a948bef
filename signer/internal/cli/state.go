package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

// state is the signed branch, for commands that put a commit on it.
type state struct {
	o        *options
	now      time.Time
	branch   string
	expiries v1.Expiries
	git      *publish.Repository
	// root is the bootstrap root.
	root []byte
	// base is the commit that is built upon, old that of the local branch.
	base, old string
	tree      *publish.Tree
}

// openState opens the repository; begin, what the branch holds.
func openState(o *options, dir string, fleet v1.Fleet) (*state, error) {
	git, err := publish.Open(dir)
	if err != nil {
		return nil, err
	}
	root, err := bootstrapRoot(dir)
	if err != nil {
		return nil, err
	}
	return &state{
		o: o, now: o.now().UTC().Truncate(time.Second), branch: fleet.Signed.Branch, expiries: fleet.Expiries, git: git, root: root,
	}, nil
}

// begin finds the newest state, asking the remote unless offline.
func (s *state) begin(ctx context.Context, offline bool) (err error) {
	if s.base, s.old, err = baseToSign(ctx, s.o, s.git, s.branch, offline); err != nil {
		return err
	}
	if s.base == "" {
		return fmt.Errorf("cannot sign: there is no branch %s, here or on %s, to build on; gpuaas-signer init makes the first one", s.branch, defaultRemote)
	}
	s.tree, err = s.git.Tree(s.base)
	return err
}

// open verifies what is built upon.
func (s *state) open() (*sign.Base, error) {
	base, err := sign.Open(s.root, s.tree)
	if err != nil {
		return nil, fmt.Errorf("cannot build on %s: %w", short(s.base), err)
	}
	return base, nil
}

// verify holds the new state against what nodes would say.
func (s *state) verify(files sign.Files, removed []string) error {
	gone := make(map[string]bool, len(removed))
	for _, p := range removed {
		gone[p] = true
	}
	next := overlay{base: s.tree, files: files, removed: gone}
	if _, err := trust.VerifyAll(s.root, next, trust.AllOptions{Now: s.now, Previous: s.tree}); err != nil {
		return verifyError("refused to commit what nodes would refuse", err)
	}
	return nil
}

// commit verifies the new state as nodes would, and commits it to the local branch.
func (s *state) commit(files sign.Files, removed []string, message string) (string, error) {
	if err := s.verify(files, removed); err != nil {
		return "", err
	}
	commit, err := s.git.Commit(publish.Change{
		Parent: s.base, Files: files, Removed: removed, Message: message, Author: s.o.author(), When: s.now,
	})
	if err != nil {
		return "", err
	}
	return commit, s.git.SetBranch(s.branch, commit, s.old)
}

// closeKeys gives back keys that have signed; nothing is lost when that fails.
func closeKeys(signers keys.Signers) { _ = signers.Close() }

// overlay is a state with some files changed. It implements trust.Files.
type overlay struct {
	base    trust.Files
	files   sign.Files
	removed map[string]bool
}

// ReadFile implements trust.Files.
func (o overlay) ReadFile(path string) ([]byte, bool) {
	if data, ok := o.files[path]; ok {
		return data, true
	}
	if o.removed[path] {
		return nil, false
	}
	return o.base.ReadFile(path)
}
