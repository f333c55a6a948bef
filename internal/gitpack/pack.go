package gitpack

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

const (
	// none is no entry.
	none = int32(-1)
	// maxChain is how long a chain of deltas may be; git's own packs end at 4,095.
	maxChain = 4096
)

// entry is where one object lies.
type entry struct {
	offset     int64
	baseOffset int64 // of an ofsDelta
	size       uint64
	// base is the entry that a delta builds on, none where that is unknown or
	// outside of the pack.
	base int32
	kind Type
	// known is true when the entry's id is.
	known bool
}

// Base looks up objects that the other side believes are here.
type Base func(ID) (Object, bool)

// Pack is a received pack. It is not safe for concurrent use.
type Pack struct {
	limits  Limits
	spool   *spool
	base    Base
	entries []entry
	ids     []ID
	// outside is the base of those refDelta entries whose base is not in the pack
	// as far as known.
	outside map[int32]ID
	// resolved is true once every delta that can be resolved has its id.
	resolved bool
	inflate  io.ReadCloser
}

// OpenFile returns an empty file for a pack that is too big for memory; the Pack
// closes it.
type OpenFile func() (*os.File, error)

// Read reads a whole pack from r. What is too big for memory goes to the file
// that open returns. base answers for objects outside of a thin pack; nil means that
// there are none. Errors wrap ErrLimit where a limit was the cause.
func Read(r io.Reader, open OpenFile, limits Limits, base Base) (_ *Pack, err error) {
	if base == nil {
		base = func(ID) (Object, bool) { return Object{}, false }
	}
	p := &Pack{limits: limits, spool: &spool{open: open}, base: base, outside: map[int32]ID{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.spool.Close())
		}
	}()
	s := newScanner(r, p.spool, limits)
	count, err := s.header()
	if err != nil {
		return nil, err
	}
	for i := range int32(count) {
		e, id, err := s.entry()
		if err != nil {
			return nil, err
		}
		switch e.kind {
		case ofsDelta:
			if e.base = p.find(e.baseOffset); e.base == none {
				return nil, fmt.Errorf("%w: a delta on nothing", errPack)
			}
			id = ID{}
		case refDelta:
			p.outside[i], id = id, ID{}
		default:
			e.known = true
		}
		p.entries, p.ids = append(p.entries, e), append(p.ids, id)
	}
	return p, s.trailer()
}

// find returns the entry at an offset: entries are in their order.
func (p *Pack) find(offset int64) int32 {
	i, ok := slices.BinarySearchFunc(p.entries, offset, func(e entry, at int64) int {
		return int(min(max(e.offset-at, -1), 1))
	})
	if !ok {
		return none
	}
	return int32(i)
}

// Len returns the number of entries.
func (p *Pack) Len() int { return len(p.entries) }

// Close gives the pack's storage up.
func (p *Pack) Close() error { return p.spool.Close() }

// Object returns an object; false where the pack doesn't hold it or holds only
// a delta on something that isn't here.
func (p *Pack) Object(id ID) (Object, bool, error) {
	i := p.index(id)
	if i == none && !p.resolved {
		if err := p.resolve(); err != nil {
			return Object{}, false, err
		}
		i = p.index(id)
	}
	if i == none {
		return Object{}, false, nil
	}
	o, err := p.load(i)
	if errors.Is(err, errOutside) {
		return Object{}, false, nil
	}
	if err == nil && o.ID() != id {
		err = errPack
	}
	return o, err == nil, err
}

// First returns the id and content of the first entry.
func (p *Pack) First() (ID, Object, error) {
	if len(p.entries) == 0 || !p.entries[0].known {
		return ID{}, Object{}, errPack
	}
	o, err := p.load(0)
	return p.ids[0], o, err
}

// All calls yield for every entry that is no delta.
func (p *Pack) All(yield func(ID, Object)) error {
	for i, e := range p.entries {
		if !e.known {
			continue
		}
		o, err := p.load(int32(i))
		if err != nil {
			return err
		}
		yield(p.ids[i], o)
	}
	return nil
}

// index finds an entry by id. Few objects are asked for, so a look at each
// entry is cheaper than a map of them all.
func (p *Pack) index(id ID) int32 {
	for i := range p.ids {
		if p.ids[i] == id && p.entries[i].known {
			return int32(i)
		}
	}
	return none
}

var errOutside = errors.New("a delta on an object that isn't here")

// load returns the content of an entry, whatever it is a delta of.
func (p *Pack) load(i int32) (Object, error) {
	var chain []int32
	for p.entries[i].base != none {
		if chain = append(chain, i); len(chain) > maxChain {
			return Object{}, fmt.Errorf("a chain of deltas: %w of %d", ErrLimit, maxChain)
		}
		i = p.entries[i].base
	}
	o, err := p.root(i)
	for _, j := range slices.Backward(chain) {
		if err != nil {
			return Object{}, err
		}
		o, err = p.apply(o, j)
	}
	return o, err
}

// root returns the content of an entry whose base is not another entry.
func (p *Pack) root(i int32) (Object, error) {
	e := p.entries[i]
	if e.kind != refDelta {
		data, err := p.read(i)
		return Object{e.kind, data}, err
	}
	base, ok := p.base(p.outside[i])
	if !ok {
		return Object{}, errOutside
	}
	return p.apply(base, i)
}

func (p *Pack) apply(base Object, i int32) (Object, error) {
	delta, err := p.read(i)
	if err != nil {
		return Object{}, err
	}
	data, err := patch(base.Data, delta, p.limits.Object)
	return Object{base.Type, data}, err
}

// read inflates an entry: content, or delta.
func (p *Pack) read(i int32) ([]byte, error) {
	e := p.entries[i]
	if e.size > p.limits.Object {
		return nil, fmt.Errorf("an object of %d bytes: %w of %d", e.size, ErrLimit, p.limits.Object)
	}
	r := bufio.NewReaderSize(p.spool.at(e.offset), 512)
	if _, _, err := entryHeader(r); err != nil {
		return nil, err
	}
	switch e.kind {
	case ofsDelta:
		if _, err := baseOffset(r); err != nil {
			return nil, err
		}
	case refDelta:
		if _, err := r.Discard(len(ID{})); err != nil {
			return nil, err
		}
	}
	if err := resetInflate(&p.inflate, r); err != nil {
		return nil, err
	}
	data := make([]byte, e.size)
	if _, err := io.ReadFull(p.inflate, data); err != nil {
		return nil, inflateError(err)
	}
	return data, nil
}

// Size returns the bytes of the pack, without its checksum.
func (p *Pack) Size() int64 { return p.spool.size }
