// Package worktree is the checked-out side of a fleet repo: it makes a new
// repository and tells what in an existing one isn't committed. Package publish
// has the other side, the signed branch, which is never checked out.
package worktree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// MainBranch is the branch that Create makes.
const MainBranch = "main"

// Author is who commits.
type Author struct{ Name, Email string }

// ConfiguredAuthor is who git's configuration says that this user is; fields are
// empty where it doesn't.
func ConfiguredAuthor() Author {
	c, err := config.LoadConfig(config.GlobalScope)
	if err != nil {
		return Author{}
	}
	return Author{Name: c.User.Name, Email: c.User.Email}
}

// Create makes a git repository in dir, which exists and is empty, with these
// files by slash-separated path in one commit on MainBranch.
func Create(dir string, files map[string][]byte, message string, author Author, when time.Time) error {
	for name, data := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return fmt.Errorf("cannot make the fleet repo: %w", err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			return fmt.Errorf("cannot make the fleet repo: %w", err)
		}
	}
	if err := commitAll(dir, message, author, when); err != nil {
		return fmt.Errorf("cannot make the git repository of the fleet: %w", err)
	}
	return nil
}

func commitAll(dir, message string, author Author, when time.Time) error {
	r, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{
		InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName(MainBranch)},
	})
	if err != nil {
		return err
	}
	w, err := r.Worktree()
	if err != nil {
		return err
	}
	if err := w.AddWithOptions(&git.AddOptions{All: true}); err != nil {
		return err
	}
	sig := &object.Signature{Name: author.Name, Email: author.Email, When: when}
	_, err = w.Commit(message, &git.CommitOptions{Author: sig, Committer: sig})
	return err
}

// Uncommitted returns the files among those that matter (a file, or a folder
// with all YAML files below it; relative to dir) which differ between dir and
// the commit that is checked out, sorted. dir is a git worktree's root or a folder in it.
func Uncommitted(dir string, matter []string) ([]string, error) {
	committed, err := headFiles(dir, matter)
	if err != nil {
		return nil, err
	}
	var changed []string
	compare := func(name string, data []byte) {
		hash, known := committed[name]
		if !known || hash != plumbing.ComputeHash(plumbing.BlobObject, data) {
			changed = append(changed, name)
		}
		delete(committed, name)
	}
	for _, m := range matter {
		if err := readAll(dir, m, compare); err != nil {
			return nil, fmt.Errorf("cannot compare with what is committed: %w", err)
		}
	}
	for name := range committed { // deleted here
		changed = append(changed, name)
	}
	slices.Sort(changed)
	return changed, nil
}

// readAll calls do for the file, or the YAML files of the folder, at dir/name.
func readAll(dir, name string, do func(name string, data []byte)) error {
	err := filepath.WalkDir(filepath.Join(dir, name), func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if rel != name && !counts(rel) {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		do(rel, data)
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func counts(name string) bool { return strings.HasSuffix(name, ".yaml") }

// headFiles returns the blobs of HEAD that matter, by path relative to dir.
func headFiles(dir string, matter []string) (map[string]plumbing.Hash, error) {
	r, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("cannot open the git repository of %s: %w", dir, err)
	}
	prefix, err := prefixOf(r, dir)
	if err != nil {
		return nil, err
	}
	head, err := r.Head()
	if err != nil {
		return nil, fmt.Errorf("cannot find what is checked out in %s: %w", dir, err)
	}
	commit, err := r.CommitObject(head.Hash())
	if err != nil {
		return nil, fmt.Errorf("cannot read commit %s: %w", head.Hash(), err)
	}
	tree, err := commit.Tree()
	if err == nil && prefix != "." {
		tree, err = tree.Tree(prefix)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read commit %s: %w", head.Hash(), err)
	}
	out := map[string]plumbing.Hash{}
	for _, m := range matter {
		if err := collect(tree, m, out); err != nil {
			return nil, fmt.Errorf("cannot read commit %s: %w", head.Hash(), err)
		}
	}
	return out, nil
}

// prefixOf is where dir is in the worktree, slash-separated.
func prefixOf(r *git.Repository, dir string) (string, error) {
	w, err := r.Worktree()
	if err != nil {
		return "", fmt.Errorf("cannot find the worktree of %s: %w", dir, err)
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("cannot find the worktree of %s: %w", dir, err)
	}
	root, err := filepath.EvalSymlinks(w.Filesystem.Root())
	if err != nil {
		return "", fmt.Errorf("cannot find the worktree of %s: %w", dir, err)
	}
	rel, err := filepath.Rel(root, abs)
	if err != nil {
		return "", fmt.Errorf("cannot find the worktree of %s: %w", dir, err)
	}
	return filepath.ToSlash(rel), nil
}

// collect adds the file, or the YAML files of the folder, called name.
func collect(tree *object.Tree, name string, out map[string]plumbing.Hash) error {
	e, err := tree.FindEntry(name)
	if errors.Is(err, object.ErrEntryNotFound) || errors.Is(err, object.ErrDirectoryNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if e.Mode != filemode.Dir {
		out[name] = e.Hash
		return nil
	}
	sub, err := tree.Tree(name)
	if err != nil {
		return err
	}
	return walkTree(sub, name, out)
}

func walkTree(tree *object.Tree, folder string, out map[string]plumbing.Hash) error {
	for _, e := range tree.Entries {
		name := folder + "/" + e.Name
		switch {
		case e.Mode == filemode.Dir:
			sub, err := tree.Tree(e.Name)
			if err != nil {
				return err
			}
			if err := walkTree(sub, name, out); err != nil {
				return err
			}
		case e.Mode.IsFile() && counts(name):
			out[name] = e.Hash
		}
	}
	return nil
}
