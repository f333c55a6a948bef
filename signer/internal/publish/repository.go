package publish

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// Repository is a git repository on this machine: a clone, a linked worktree,
// a bare one; with all of its history or shallow. It is not safe for
// concurrent use; several processes may work on one repository.
type Repository struct {
	dir     string
	git     *git.Repository
	storage *filesystem.Storage
}

// openPacks is how many packs stay open between reads.
const openPacks = 16

// Open opens the repository that dir, or a folder above it, belongs to.
func Open(dir string) (*Repository, error) {
	// Looking upwards misses bare repositories, so they come first.
	r, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		r, err = git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	}
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, fmt.Errorf("%s is not in a git repository: run git init or git clone there", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the git repository of %s: %w", dir, err)
	}
	files, ok := r.Storer.(*filesystem.Storage)
	if !ok {
		return nil, fmt.Errorf("%s is not a repository in files", dir)
	}
	// Opened once more with packs that stay open: a fleet is many small reads.
	storage := filesystem.NewStorageWithOptions(files.Filesystem(), cache.NewObjectLRUDefault(), filesystem.Options{MaxOpenDescriptors: openPacks})
	var worktree billy.Filesystem
	if w, err := r.Worktree(); err == nil {
		worktree = w.Filesystem
	}
	if r, err = git.Open(storage, worktree); err != nil {
		return nil, fmt.Errorf("cannot open the git repository of %s: %w", dir, err)
	}
	return &Repository{dir: dir, git: r, storage: storage}, nil
}

// Close closes what reading opened.
func (r *Repository) Close() error { return r.storage.Close() }

// Branch returns the commit of a local branch, "" where there is none.
func (r *Repository) Branch(branch string) (string, error) {
	return r.ref(plumbing.NewBranchReferenceName(branch))
}

// RemoteBranch returns the commit at which a fetch last saw a remote's branch,
// "" where it never did.
func (r *Repository) RemoteBranch(remote, branch string) (string, error) {
	return r.ref(plumbing.NewRemoteReferenceName(remote, branch))
}

func (r *Repository) ref(name plumbing.ReferenceName) (string, error) {
	ref, err := r.git.Reference(name, true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cannot read %s: %w", name, err)
	}
	return ref.Hash().String(), nil
}

// Resolve returns the commit that a revision such as HEAD, a branch, a tag or an
// abbreviated hash means.
func (r *Repository) Resolve(revision string) (string, error) {
	hash, err := r.git.ResolveRevision(plumbing.Revision(revision))
	if err != nil {
		return "", fmt.Errorf("cannot find revision %q: %w", revision, err)
	}
	return hash.String(), nil
}

// RemoteURL returns the URL of a remote, without user and password.
func (r *Repository) RemoteURL(remote string) (string, error) {
	e, err := r.endpoint(remote)
	if err != nil {
		return "", err
	}
	return display(e), nil
}

// SetBranch moves a local branch from the commit old ("" for none) to another
// one. It fails when the branch is elsewhere or checked out.
func (r *Repository) SetBranch(branch, commit, old string) error {
	name := plumbing.NewBranchReferenceName(branch)
	hash, err := parseHash(commit)
	if err != nil {
		return err
	}
	if head, err := r.git.Reference(plumbing.HEAD, false); err == nil && head.Target() == name {
		return fmt.Errorf("branch %s is checked out in %s: switch to another one, because signing writes to it", branch, r.dir)
	}
	now, err := r.Branch(branch)
	if err != nil {
		return err
	}
	if now != old {
		return &ConflictError{Branch: branch, Expected: old, Found: now}
	}
	var before *plumbing.Reference
	if old != "" {
		before = plumbing.NewHashReference(name, plumbing.NewHash(old))
	}
	if err := r.git.Storer.CheckAndSetReference(plumbing.NewHashReference(name, hash), before); err != nil {
		return fmt.Errorf("cannot move branch %s: %w", branch, err)
	}
	return nil
}

func (r *Repository) commit(hash string) (*object.Commit, error) {
	h, err := parseHash(hash)
	if err != nil {
		return nil, err
	}
	c, err := r.git.CommitObject(h)
	if err != nil {
		return nil, fmt.Errorf("cannot read commit %s: %w", hash, err)
	}
	return c, nil
}

func parseHash(s string) (plumbing.Hash, error) {
	if !plumbing.IsHash(s) || len(s) != 2*len(plumbing.Hash{}) {
		return plumbing.ZeroHash, fmt.Errorf("%q is not a commit hash", s)
	}
	return plumbing.NewHash(s), nil
}

// ConflictError says that a branch is not at the commit that was built upon.
type ConflictError struct {
	// Branch is its short name.
	Branch string
	// Expected and Found are commits; "" stands for no branch.
	Expected, Found string
}

// Error implements error.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("somebody published to branch %s meanwhile (it is at %s, not at %s): run sign again", e.Branch, orNone(e.Found), orNone(e.Expected))
}

func orNone(commit string) string {
	if commit == "" {
		return "no commit"
	}
	return strings.ToLower(commit[:min(len(commit), 12)])
}
