package publish

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// collector gathers the objects that a remote lacks.
type collector struct {
	objects storer.EncodedObjectStorer
	seen    map[plumbing.Hash]bool
	list    []plumbing.Hash
}

// newObjects returns what commit has and old doesn't. Commits that the remote
// advertises, and what lies behind a shallow boundary, it is expected to have.
func (r *Repository) newObjects(commit, old plumbing.Hash, advertised map[string]plumbing.Hash) ([]plumbing.Hash, error) {
	there := map[plumbing.Hash]bool{}
	for _, h := range advertised {
		there[h] = true
	}
	var base *object.Tree
	if !old.IsZero() {
		there[old] = true
		replaced, err := r.git.CommitObject(old)
		if err != nil {
			return nil, fmt.Errorf("commit %s, which is to be replaced: %w; fetch first", old, err)
		}
		if base, err = replaced.Tree(); err != nil {
			return nil, err
		}
	}
	c := &collector{objects: r.git.Storer, seen: map[plumbing.Hash]bool{}}
	for pending := []plumbing.Hash{commit}; len(pending) > 0; pending = pending[1:] {
		h := pending[0]
		if there[h] || c.seen[h] {
			continue
		}
		next, err := r.git.CommitObject(h)
		if errors.Is(err, plumbing.ErrObjectNotFound) && h != commit {
			continue // behind a shallow boundary
		}
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", h, err)
		}
		c.add(h)
		if err := c.tree(next.TreeHash, base); err != nil {
			return nil, err
		}
		pending = append(pending, next.ParentHashes...)
	}
	return c.list, nil
}

func (c *collector) add(h plumbing.Hash) {
	c.seen[h] = true
	c.list = append(c.list, h)
}

// tree adds a tree and what is below it, except for what base has at the same
// path.
func (c *collector) tree(hash plumbing.Hash, base *object.Tree) error {
	if c.seen[hash] || base != nil && base.Hash == hash {
		return nil
	}
	t, err := object.GetTree(c.objects, hash)
	if err != nil {
		return fmt.Errorf("folder %s: %w", hash, err)
	}
	c.add(hash)
	there := map[string]object.TreeEntry{}
	if base != nil {
		for _, e := range base.Entries {
			there[e.Name] = e
		}
	}
	for _, e := range t.Entries {
		before, ok := there[e.Name]
		if ok && before.Hash == e.Hash || c.seen[e.Hash] {
			continue
		}
		switch e.Mode {
		case filemode.Dir:
			var below *object.Tree
			if ok && before.Mode == filemode.Dir {
				if below, err = object.GetTree(c.objects, before.Hash); err != nil {
					return fmt.Errorf("folder %s: %w", before.Hash, err)
				}
			}
			if err := c.tree(e.Hash, below); err != nil {
				return err
			}
		case filemode.Submodule:
		default:
			c.add(e.Hash)
		}
	}
	return nil
}
