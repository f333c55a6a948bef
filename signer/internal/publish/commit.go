package publish

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// Change is a commit to make.
type Change struct {
	// Parent is the commit to build upon, "" for none.
	Parent string
	// Files are written, Removed ones removed; paths are slash-separated. Removing
	// what isn't there is nothing.
	Files   map[string][]byte
	Removed []string

	Message string
	Author  Author
	When    time.Time
}

// Author is who commits.
type Author struct{ Name, Email string }

// Commit makes a commit and returns its hash, which depends on the Change and
// the parent's content alone. No branch moves. When the files are those of the
// parent already no commit is made, and the parent's hash is returned.
func (r *Repository) Commit(c Change) (string, error) {
	base, err := r.Tree(c.Parent)
	if err != nil {
		return "", err
	}
	changes, err := newFolder(c)
	if err != nil {
		return "", err
	}
	w := &writer{base: base, seen: map[plumbing.Hash]bool{}}
	root, err := w.write("", changes)
	if err != nil {
		return "", fmt.Errorf("cannot write the commit: %w", err)
	}
	if c.Parent != "" && root == base.root {
		return c.Parent, nil
	}
	if root.IsZero() { // git's empty tree is an object too
		root = w.put(gitpack.Tree, nil)
	}
	who := object.Signature{Name: c.Author.Name, Email: c.Author.Email, When: c.When.UTC().Truncate(time.Second)}
	commit := &object.Commit{Author: who, Committer: who, Message: c.Message, TreeHash: root}
	if c.Parent != "" {
		commit.ParentHashes = []plumbing.Hash{plumbing.NewHash(c.Parent)}
	}
	data, err := encode(commit)
	if err != nil {
		return "", fmt.Errorf("cannot write the commit: %w", err)
	}
	hash := w.put(gitpack.Commit, data)
	if err := w.store(r.storage); err != nil {
		return "", fmt.Errorf("cannot write the commit: %w", err)
	}
	return hash.String(), nil
}

// folder is what changes in one folder.
type folder struct {
	// files are written; nil ones are removed.
	files   map[string][]byte
	folders map[string]*folder
}

func newFolder(c Change) (*folder, error) {
	root := &folder{}
	for _, path := range c.Removed {
		if err := root.set(path, nil); err != nil {
			return nil, err
		}
	}
	for path, data := range c.Files {
		if data == nil {
			data = []byte{}
		}
		if err := root.set(path, data); err != nil {
			return nil, err
		}
	}
	return root, nil
}

func (f *folder) set(path string, data []byte) error {
	elements := strings.Split(path, "/")
	for _, e := range elements {
		if e == "" || e == "." || e == ".." || strings.EqualFold(e, ".git") || strings.ContainsRune(e, 0) {
			return fmt.Errorf("%q can't be a path in a git repository", path)
		}
	}
	for _, e := range elements[:len(elements)-1] {
		if f.folders == nil {
			f.folders = map[string]*folder{}
		}
		if f.folders[e] == nil {
			f.folders[e] = &folder{}
		}
		f = f.folders[e]
	}
	if f.files == nil {
		f.files = map[string][]byte{}
	}
	f.files[elements[len(elements)-1]] = data
	return nil
}
