package publish

import (
	"compress/zlib"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// manyObjects is how many new objects are written as one pack.
const manyObjects = 64

// writer collects new objects and stores them at the end, so that a failure in
// between leaves nothing behind.
type writer struct {
	base    *Tree
	objects []gitpack.Object
	hashes  []plumbing.Hash
	seen    map[plumbing.Hash]bool
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
	w.files(entries, changes.files)
	for name, below := range changes.folders {
		if changes.files[name] != nil {
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
	return w.tree(entries, before)
}

// files puts the changed files of one folder among its entries.
func (w *writer) files(entries map[string]object.TreeEntry, changed map[string][]byte) {
	for name, data := range changed {
		before := entries[name]
		switch {
		case data != nil:
			hash := plumbing.Hash(gitpack.Object{Type: gitpack.Blob, Data: data}.ID())
			if !before.Mode.IsFile() || before.Hash != hash {
				w.keep(gitpack.Object{Type: gitpack.Blob, Data: data}, hash)
			}
			entries[name] = object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: hash}
		case before.Mode != filemode.Dir:
			delete(entries, name)
		}
	}
}

func (w *writer) tree(entries map[string]object.TreeEntry, before *object.Tree) (plumbing.Hash, error) {
	tree := &object.Tree{Entries: make([]object.TreeEntry, 0, len(entries))}
	for _, e := range entries {
		tree.Entries = append(tree.Entries, e)
	}
	slices.SortFunc(tree.Entries, func(a, b object.TreeEntry) int { return strings.Compare(sortKey(a), sortKey(b)) })
	data, err := encode(tree)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	o := gitpack.Object{Type: gitpack.Tree, Data: data}
	hash := plumbing.Hash(o.ID())
	if before == nil || before.Hash != hash {
		w.keep(o, hash)
	}
	return hash, nil
}

// sortKey is what git orders entries by: folders as if their names ended in a
// slash.
func sortKey(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

// put takes an object in and returns its hash.
func (w *writer) put(kind gitpack.Type, data []byte) plumbing.Hash {
	o := gitpack.Object{Type: kind, Data: data}
	hash := plumbing.Hash(o.ID())
	w.keep(o, hash)
	return hash
}

func (w *writer) keep(o gitpack.Object, hash plumbing.Hash) {
	if !w.seen[hash] {
		w.seen[hash] = true
		w.objects, w.hashes = append(w.objects, o), append(w.hashes, hash)
	}
}

// encode returns the bytes of a tree or a commit.
func encode(o interface {
	Encode(plumbing.EncodedObject) error
}) (_ []byte, err error) {
	var m plumbing.MemoryObject
	if err := o.Encode(&m); err != nil {
		return nil, err
	}
	r, err := m.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// store writes the new objects: few as files, many as a pack.
func (w *writer) store(to *filesystem.Storage) error {
	if len(w.objects) >= manyObjects {
		return w.storePack(to)
	}
	for i, o := range w.objects {
		if to.HasEncodedObject(w.hashes[i]) == nil {
			continue
		}
		var m plumbing.MemoryObject
		m.SetType(plumbing.ObjectType(o.Type))
		if _, err := m.Write(o.Data); err != nil {
			return err
		}
		if _, err := to.SetEncodedObject(&m); err != nil {
			return err
		}
	}
	return nil
}

// packDir is where git keeps packs.
const packDir = "objects/pack"

// storePack writes a pack and its index, which go-git would make by reading the
// pack again.
func (w *writer) storePack(to *filesystem.Storage) (err error) {
	dir := to.Filesystem()
	if err := dir.MkdirAll(packDir, 0o755); err != nil {
		return err
	}
	f, err := createTemp(dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, dir.Remove(f.Name()))
		}
	}()
	pack, sum, err := w.writePack(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	base := packDir + "/pack-" + sum.String()
	if err := dir.Rename(f.Name(), base+".pack"); err != nil {
		return err
	}
	// The index makes the pack visible, so it comes last and as a whole.
	if err := writeWhole(dir, base+".idx", pack.Index(sum)); err != nil {
		return err
	}
	to.Reindex()
	return nil
}

func (w *writer) writePack(out io.Writer) (*gitpack.Writer, gitpack.ID, error) {
	pack, err := gitpack.NewWriter(out, len(w.objects), zlib.BestSpeed)
	if err != nil {
		return nil, gitpack.ID{}, err
	}
	for i, o := range w.objects {
		if err := pack.Add(o, gitpack.ID(w.hashes[i])); err != nil {
			return nil, gitpack.ID{}, err
		}
	}
	sum, err := pack.Close()
	return pack, sum, err
}

// createTemp makes a file that git takes for a left-over if it is one, with the
// mode of git's packs.
func createTemp(dir billy.Filesystem) (billy.File, error) {
	return dir.OpenFile(packDir+"/tmp_pack_"+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
}

func writeWhole(dir billy.Filesystem, path string, data []byte) (err error) {
	f, err := createTemp(dir)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = dir.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(f.Name()))
	}
	return nil
}
