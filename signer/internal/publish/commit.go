package publish

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"
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

// manyObjects is how many new objects are written as one pack.
const manyObjects = 64

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
	w := &writer{base: base, fresh: memory.NewStorage()}
	root, err := w.write("", changes)
	if err != nil {
		return "", fmt.Errorf("cannot write the commit: %w", err)
	}
	if c.Parent != "" && root == base.root {
		return c.Parent, nil
	}
	if root.IsZero() { // git's empty tree is an object too
		if root, err = w.put(&object.Tree{}); err != nil {
			return "", fmt.Errorf("cannot write the commit: %w", err)
		}
	}
	who := object.Signature{Name: c.Author.Name, Email: c.Author.Email, When: c.When.UTC().Truncate(time.Second)}
	commit := &object.Commit{Author: who, Committer: who, Message: c.Message, TreeHash: root}
	if c.Parent != "" {
		commit.ParentHashes = []plumbing.Hash{plumbing.NewHash(c.Parent)}
	}
	hash, err := w.put(commit)
	if err == nil {
		err = w.store(r.git.Storer)
	}
	if err != nil {
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

// writer collects new objects and stores them at the end, so that a failure in
// between leaves nothing behind.
type writer struct {
	base   *Tree
	fresh  *memory.Storage
	hashes []plumbing.Hash
}

// write returns the hash of a folder with its changes; zero where it is empty.
func (w *writer) write(path string, changes *folder) (plumbing.Hash, error) {
	before, err := w.base.folder(path)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	entries := map[string]object.TreeEntry{}
	if before != nil {
		for _, e := range before.Entries {
			entries[e.Name] = e
		}
	}
	for name, data := range changes.files {
		if data == nil {
			if entries[name].Mode != filemode.Dir {
				delete(entries, name)
			}
			continue
		}
		hash, err := w.putBlob(data)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		entries[name] = object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: hash}
	}
	for name, below := range changes.folders {
		if _, both := changes.files[name]; both && changes.files[name] != nil {
			return plumbing.ZeroHash, fmt.Errorf("%s can't be a file and a folder", join(path, name))
		}
		hash, err := w.write(join(path, name), below)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		switch {
		case !hash.IsZero():
			entries[name] = object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash}
		case entries[name].Mode == filemode.Dir:
			delete(entries, name)
		}
	}
	if len(entries) == 0 {
		return plumbing.ZeroHash, nil
	}
	tree := &object.Tree{Entries: make([]object.TreeEntry, 0, len(entries))}
	for _, e := range entries {
		tree.Entries = append(tree.Entries, e)
	}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	return w.put(tree)
}

// sortKey is what git orders entries by: folders as if their names ended in a
// slash.
func sortKey(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

// put takes a tree or a commit in.
func (w *writer) put(o interface {
	Encode(plumbing.EncodedObject) error
}) (plumbing.Hash, error) {
	encoded := w.fresh.NewEncodedObject()
	if err := o.Encode(encoded); err != nil {
		return plumbing.ZeroHash, err
	}
	return w.keep(encoded)
}

func (w *writer) putBlob(data []byte) (_ plumbing.Hash, err error) {
	encoded := w.fresh.NewEncodedObject()
	encoded.SetType(plumbing.BlobObject)
	blob, err := encoded.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := blob.Write(data); err != nil {
		return plumbing.ZeroHash, errors.Join(err, blob.Close())
	}
	if err := blob.Close(); err != nil {
		return plumbing.ZeroHash, err
	}
	return w.keep(encoded)
}

func (w *writer) keep(o plumbing.EncodedObject) (plumbing.Hash, error) {
	if w.base.objects.HasEncodedObject(o.Hash()) == nil {
		return o.Hash(), nil
	}
	if w.fresh.HasEncodedObject(o.Hash()) == nil {
		return o.Hash(), nil
	}
	w.hashes = append(w.hashes, o.Hash())
	return w.fresh.SetEncodedObject(o)
}

// store writes the new objects: few as files, many as a pack.
func (w *writer) store(to storer.EncodedObjectStorer) (err error) {
	packs, ok := to.(storer.PackfileWriter)
	if !ok || len(w.hashes) < manyObjects {
		for _, h := range w.hashes {
			if _, err := to.SetEncodedObject(w.fresh.Objects[h]); err != nil {
				return err
			}
		}
		return nil
	}
	out, err := packs.PackfileWriter()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = packfile.NewEncoder(out, w.fresh, false).Encode(w.hashes, 0)
	return err
}
