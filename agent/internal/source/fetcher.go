package source

import (
	"context"
	"errors"
	"fmt"

	"github.com/gpuaas/node-agent/agent/internal/source/gitwire"
	"github.com/gpuaas/node-agent/internal/gitpack"
)

// maxRounds bounds how often a server is asked: once for each element of the
// deepest wanted path, and some.
const maxRounds = 32

// Filters that the forges allow.
const (
	// onlyWhatIsWanted leaves out everything that a wanted object leads to.
	onlyWhatIsWanted = "tree:0"
	// noFiles leaves out files.
	noFiles = "blob:none"
)

// maxStep is how many objects a change may have to be fetched in one request.
// One commit that changes one node has seven: itself and the trees on the way to
// the node and to the metadata.
const maxStep = 200

// fetcher gets the objects that lead to the wanted files of one commit.
type fetcher struct {
	client *gitwire.Client
	wanted []string
	limits Limits
	// open gives a file for a pack too big for memory.
	open gitpack.OpenFile
	// objects are those here, kept ones first.
	objects map[gitpack.ID]gitpack.Object
	// kept is the commit whose objects were kept, zero for none.
	kept gitpack.ID
	// wire is what is left of limits.Wire.
	wire int64
}

// fetch returns a walk that misses nothing.
func (f *fetcher) fetch(ctx context.Context, tip gitpack.ID) (*walk, error) {
	if f.client.Server().Filter {
		w, err := f.bySteps(ctx, tip)
		if !refused(err) {
			return w, err
		}
		// Some servers offer filters and refuse this one, or lost the commit: the
		// plain way shows which.
	}
	return f.byDifference(ctx, tip)
}

// refused reports whether it was the server that didn't want.
func refused(err error) bool {
	var said *gitwire.ServerError
	return errors.As(err, &said) || errors.Is(err, gitwire.ErrProtocol)
}

// bySteps asks for the commit, then for what it leads to, level by level. Where
// a commit was kept, the new trees come in one step as long as they are few.
func (f *fetcher) bySteps(ctx context.Context, tip gitpack.ID) (*walk, error) {
	if _, here := f.objects[tip]; !here && !f.kept.IsZero() {
		request := gitwire.Request{Wants: []gitpack.ID{tip}, Have: f.kept, Filter: noFiles}
		limits := f.limits.pack()
		limits.Objects = maxStep
		err := f.get(ctx, request, limits, func() ([]gitpack.ID, error) {
			w, err := walkFrom(f.objects, tip, f.wanted, f.limits)
			if err != nil {
				return nil, err
			}
			return w.missing, nil
		})
		// Too much has changed, or the kept commit is nothing to build on.
		if err != nil && !refused(err) && !errors.Is(err, gitpack.ErrLimit) {
			return nil, err
		}
	}
	for range maxRounds {
		w, err := walkFrom(f.objects, tip, f.wanted, f.limits)
		if err != nil || len(w.missing) == 0 {
			return w, err
		}
		request := gitwire.Request{Wants: w.missing, Filter: onlyWhatIsWanted, Depth1: w.missing[0] == tip}
		if err := f.get(ctx, request, f.limits.pack(), func() ([]gitpack.ID, error) { return w.missing, nil }); err != nil {
			return nil, err
		}
		for _, id := range w.missing {
			if _, ok := f.objects[id]; !ok {
				return nil, fmt.Errorf("%w: it doesn't send object %s", gitwire.ErrProtocol, id)
			}
		}
	}
	return nil, fmt.Errorf("the branch needs more than %d requests: %w", maxRounds, errLimit)
}

// byDifference asks for what the commit has and the kept one hasn't. The pack's
// deltas may build on objects of the kept commit that weren't wanted and so
// aren't here; then, or when the kept objects were incomplete, everything is
// asked for.
func (f *fetcher) byDifference(ctx context.Context, tip gitpack.ID) (*walk, error) {
	w, err := walkFrom(f.objects, tip, f.wanted, f.limits)
	if err != nil || len(w.missing) == 0 {
		return w, err
	}
	have := f.kept
	for {
		request := gitwire.Request{Wants: []gitpack.ID{tip}, Have: have, Depth1: true}
		next := func() ([]gitpack.ID, error) {
			var err error
			if w, err = walkFrom(f.objects, tip, f.wanted, f.limits); err != nil {
				return nil, err
			}
			return w.missing, nil
		}
		if err := f.get(ctx, request, f.limits.pack(), next); err != nil {
			return nil, err
		}
		if len(w.missing) == 0 {
			return w, nil
		}
		if have.IsZero() {
			return nil, fmt.Errorf("%w: it doesn't send object %s", gitwire.ErrProtocol, w.missing[0])
		}
		have = gitpack.ID{}
	}
}

// get fetches a pack and takes out of it what next asks for, again and again
// until that is nothing or not in the pack.
func (f *fetcher) get(ctx context.Context, request gitwire.Request, limits gitpack.Limits, next func() ([]gitpack.ID, error)) error {
	answer, err := f.client.Fetch(ctx, request, f.wire)
	if err != nil {
		return err
	}
	pack, err := gitpack.Read(answer, f.open, limits, func(id gitpack.ID) (gitpack.Object, bool) {
		o, ok := f.objects[id]
		return o, ok
	})
	if err != nil {
		return errors.Join(err, answer.Close())
	}
	defer func() { _ = pack.Close() }()
	if err := answer.Close(); err != nil {
		return err
	}
	f.wire -= pack.Size()
	for found := true; found; {
		found = false
		ids, err := next()
		if err != nil {
			return err
		}
		for _, id := range ids {
			if _, here := f.objects[id]; here {
				continue
			}
			o, ok, err := pack.Object(id)
			if err != nil {
				return fmt.Errorf("object %s: %w", id, err)
			}
			if ok {
				f.objects[id], found = o, true
			}
		}
	}
	return nil
}
