package publish

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Contains reports whether a commit is ancestor, or has it in its history as
// far as that is here: a shallow repository knows the end of it only.
func (r *Repository) Contains(commit, ancestor string) (bool, error) {
	if commit == "" || ancestor == "" {
		return ancestor == "", nil
	}
	start, err := r.commit(commit)
	if err != nil {
		return false, err
	}
	want := plumbing.NewHash(ancestor)
	seen := map[plumbing.Hash]bool{}
	for next := []*object.Commit{start}; len(next) > 0; {
		c := next[0]
		next = next[1:]
		if c.Hash == want {
			return true, nil
		}
		for _, parent := range c.ParentHashes {
			if seen[parent] {
				continue
			}
			seen[parent] = true
			p, err := r.git.CommitObject(parent)
			if errors.Is(err, plumbing.ErrObjectNotFound) {
				continue // beyond what is here
			}
			if err != nil {
				return false, fmt.Errorf("cannot read commit %s: %w", parent, err)
			}
			next = append(next, p)
		}
	}
	return false, nil
}
