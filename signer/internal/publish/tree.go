package publish

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// MaxFile is the size over which a file is not read.
const MaxFile = 64 << 20

// Tree is the files of one commit. It implements trust.Files. It is not safe
// for concurrent use.
type Tree struct {
	objects storer.EncodedObjectStorer
	root    plumbing.Hash
	// folders are those read so far, by their path.
	folders map[string]*object.Tree
}

// Tree returns the files of a commit; those of "" are none.
func (r *Repository) Tree(commit string) (*Tree, error) {
	t := &Tree{objects: r.git.Storer, folders: map[string]*object.Tree{}}
	if commit == "" {
		return t, nil
	}
	c, err := r.commit(commit)
	if err != nil {
		return nil, err
	}
	t.root = c.TreeHash
	return t, nil
}

// ReadFile returns a file's bytes, and false where it doesn't exist or can't be
// read; Read tells which.
func (t *Tree) ReadFile(path string) ([]byte, bool) {
	data, err := t.Read(path)
	return data, err == nil
}

// Read returns a file's bytes. The error is fs.ErrNotExist where there is none.
func (t *Tree) Read(path string) ([]byte, error) {
	dir, name := split(path)
	folder, err := t.folder(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	if folder != nil {
		for _, e := range folder.Entries {
			if e.Name == name && e.Mode.IsFile() {
				data, err := readBlob(t.objects, e.Hash)
				if err != nil {
					return nil, fmt.Errorf("cannot read %s: %w", path, err)
				}
				return data, nil
			}
		}
	}
	return nil, fmt.Errorf("cannot read %s: %w", path, fs.ErrNotExist)
}

// Paths returns the paths of all files below a folder ("" for all), sorted.
func (t *Tree) Paths(dir string) ([]string, error) {
	var paths []string
	err := t.each(dir, func(path string, _ object.TreeEntry) error {
		paths = append(paths, path)
		return nil
	})
	slices.Sort(paths)
	return paths, err
}

// Each calls do with the path and the bytes of every file below a folder (""
// for all), in no order that means anything, until it returns an error.
func (t *Tree) Each(dir string, do func(path string, data []byte) error) error {
	return t.each(dir, func(path string, e object.TreeEntry) error {
		data, err := readBlob(t.objects, e.Hash)
		if err != nil {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
		return do(path, data)
	})
}

func (t *Tree) each(dir string, do func(string, object.TreeEntry) error) error {
	folder, err := t.folder(dir)
	if err != nil || folder == nil {
		return err
	}
	for _, e := range folder.Entries {
		path := join(dir, e.Name)
		switch {
		case e.Mode == filemode.Dir:
			err = t.each(path, do)
		case e.Mode.IsFile():
			err = do(path, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// folder returns a folder, nil where there is none.
func (t *Tree) folder(path string) (*object.Tree, error) {
	if known, ok := t.folders[path]; ok {
		return known, nil
	}
	hash := t.root
	if path != "" {
		dir, name := split(path)
		above, err := t.folder(dir)
		if err != nil {
			return nil, err
		}
		hash = plumbing.ZeroHash
		if above != nil {
			for _, e := range above.Entries {
				if e.Name == name && e.Mode == filemode.Dir {
					hash = e.Hash
				}
			}
		}
	}
	var folder *object.Tree
	if !hash.IsZero() {
		var err error
		if folder, err = object.GetTree(t.objects, hash); err != nil {
			return nil, fmt.Errorf("folder %q: %w", path, err)
		}
	}
	t.folders[path] = folder
	return folder, nil
}

func readBlob(objects storer.EncodedObjectStorer, hash plumbing.Hash) ([]byte, error) {
	o, err := objects.EncodedObject(plumbing.BlobObject, hash)
	if err != nil {
		return nil, err
	}
	return content(o)
}

func content(o plumbing.EncodedObject) (_ []byte, err error) {
	if o.Size() > MaxFile {
		return nil, fmt.Errorf("more than %d bytes", MaxFile)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data := make([]byte, o.Size())
	_, err = io.ReadFull(r, data)
	return data, err
}

func split(path string) (dir, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
