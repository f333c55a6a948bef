package source

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"github.com/gpuaas/node-agent/internal/gitpack"
)

// localTip reads the branch of a repository on this machine; the zero ID where
// it doesn't exist.
func localTip(path, branch string) (gitpack.ID, error) {
	repository, err := openLocal(path)
	if err != nil {
		return gitpack.ID{}, err
	}
	ref, err := repository.Reference(plumbing.NewBranchReferenceName(branch), true)
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return gitpack.ID{}, nil
	}
	if err != nil {
		return gitpack.ID{}, err
	}
	return gitpack.ID(ref.Hash()), nil
}

func openLocal(path string) (*git.Repository, error) {
	repository, err := git.PlainOpenWithOptions(path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return nil, fmt.Errorf("cannot open the repository: %w; check source.url and that the agent may read it", err)
	}
	return repository, nil
}

// fetchLocal reads the wanted files where they are; there is nothing to keep.
func fetchLocal(path string, q request) (result, error) {
	repository, err := openLocal(path)
	if err != nil {
		return result{}, err
	}
	tip, err := gitpack.ParseID(q.Tip)
	if err != nil {
		return result{}, err
	}
	objects := map[gitpack.ID]gitpack.Object{}
	for range maxRounds {
		w, err := walkFrom(objects, tip, q.Wanted, q.Limits)
		if err != nil {
			return result{}, err
		}
		if len(w.missing) == 0 {
			r, err := w.result(tip)
			r.Cache = nil
			return r, err
		}
		for _, id := range w.missing {
			if objects[id], err = readLocal(repository.Storer, id, q.Limits); err != nil {
				return result{}, fmt.Errorf("object %s: %w", id, err)
			}
		}
	}
	return result{}, fmt.Errorf("the branch needs more than %d steps: %w", maxRounds, errLimit)
}

func readLocal(objects storer.EncodedObjectStorer, id gitpack.ID, limits Limits) (_ gitpack.Object, err error) {
	size, err := objects.EncodedObjectSize(plumbing.Hash(id))
	if err != nil {
		return gitpack.Object{}, err
	}
	if size > limits.File {
		return gitpack.Object{}, fmt.Errorf("%d bytes: %w of %d", size, errLimit, limits.File)
	}
	o, err := objects.EncodedObject(plumbing.AnyObject, plumbing.Hash(id))
	if err != nil {
		return gitpack.Object{}, err
	}
	r, err := o.Reader()
	if err != nil {
		return gitpack.Object{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, limits.File))
	return gitpack.Object{Type: gitpack.Type(o.Type()), Data: data}, err
}
