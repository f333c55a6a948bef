package gitpack

import (
	"errors"
	"slices"
)

// resolver gives deltas their ids: from each base to what builds on it, so that
// every entry is inflated once.
type resolver struct {
	pack *Pack
	// children holds the delta entries in the order of their base entry.
	children []int32
	// byRef holds deltas by the id of their base.
	byRef map[ID][]int32
	// held is how many bytes the bases on the way down take.
	held  uint64
	depth int
}

// maxHeld bounds the memory of a chain of deltas that are all big.
const maxHeld = 64 << 20

// resolve finds the ids of all deltas whose bases are here. Deltas on what isn't
// here, or whose result is over the limit, stay nameless: whoever asks for such
// an object is told that the pack doesn't hold it.
func (p *Pack) resolve() error {
	p.resolved = true
	r := &resolver{pack: p, byRef: map[ID][]int32{}}
	for i, e := range p.entries {
		if e.base != none {
			r.children = append(r.children, int32(i))
		}
	}
	slices.SortStableFunc(r.children, func(a, b int32) int { return int(p.entries[a].base) - int(p.entries[b].base) })
	refs := make([]int32, 0, len(p.outside))
	for i := range p.outside {
		refs = append(refs, i)
	}
	slices.Sort(refs)
	for _, i := range refs {
		r.byRef[p.outside[i]] = append(r.byRef[p.outside[i]], i)
	}
	for i := range p.entries {
		if err := r.from(int32(i)); err != nil {
			return err
		}
	}
	for _, i := range refs {
		id := p.outside[i]
		if p.entries[i].known || p.entries[i].base != none {
			continue
		}
		if base, ok := p.base(id); ok {
			if err := r.below(base, []int32{i}); err != nil {
				return err
			}
		}
	}
	return nil
}

// from resolves what builds on an entry that is no delta.
func (r *resolver) from(i int32) error {
	if kind := r.pack.entries[i].kind; kind == ofsDelta || kind == refDelta {
		return nil
	}
	below := r.on(i)
	if len(below) == 0 {
		return nil
	}
	o, err := r.pack.load(i)
	if errors.Is(err, ErrLimit) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.below(o, below)
}

// on returns the deltas that build on an entry whose id is known. Those that
// named it by id now know where it is.
func (r *resolver) on(i int32) []int32 {
	entries := r.pack.entries
	first, _ := slices.BinarySearchFunc(r.children, i, func(c, base int32) int { return int(entries[c].base) - int(base) })
	last := first
	for last < len(r.children) && entries[r.children[last]].base == i {
		last++
	}
	below := r.children[first:last:last]
	id := r.pack.ids[i]
	below = append(below, r.byRef[id]...)
	delete(r.byRef, id)
	for _, c := range below {
		// children is sorted by base: only entries that aren't in it change here.
		if entries[c].kind == refDelta {
			entries[c].base = i
		}
	}
	return below
}

func (r *resolver) below(base Object, deltas []int32) error {
	if r.depth >= maxChain || r.held > maxHeld {
		return nil
	}
	r.depth++
	r.held += uint64(len(base.Data))
	defer func() {
		r.depth--
		r.held -= uint64(len(base.Data))
	}()
	for _, i := range deltas {
		if r.pack.entries[i].known {
			continue
		}
		o, err := r.pack.apply(base, i)
		if errors.Is(err, ErrLimit) {
			continue
		}
		if err != nil {
			return err
		}
		r.pack.ids[i] = o.ID()
		r.pack.entries[i].known = true
		if next := r.on(i); len(next) > 0 {
			if err := r.below(o, next); err != nil {
				return err
			}
		}
	}
	return nil
}
