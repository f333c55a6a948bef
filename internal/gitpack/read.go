package gitpack

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Limits bound what a pack may cost. Zero is no limit and so never right.
type Limits struct {
	Objects  int    // entries
	Packed   int64  // bytes of the pack
	Inflated int64  // bytes of all entries, inflated
	Object   uint64 // bytes of one object that is asked for
}

var errPack = errors.New("a pack that can't be read")

// scanner reads a pack from front to back: it copies every byte to the spool,
// checks the trailer, and writes down what lies where.
type scanner struct {
	src    *bufio.Reader
	sink   *spool
	sum    hash.Hash
	offset int64
	limits Limits
	// pending are bytes that are neither hashed nor spooled yet.
	pending []byte

	inflate io.ReadCloser
	left    int64 // of Limits.Inflated
	digest  hash.Hash
	buffer  []byte
}

const chunk = 32 << 10

func newScanner(r io.Reader, sink *spool, limits Limits) *scanner {
	return &scanner{
		src: bufio.NewReaderSize(r, chunk), sink: sink, sum: sha1.New(), limits: limits,
		pending: make([]byte, 0, chunk), left: limits.Inflated, digest: sha1.New(), buffer: make([]byte, chunk),
	}
}

// ReadByte makes the inflater stop at the end of an entry instead of reading on.
func (s *scanner) ReadByte() (byte, error) {
	b, err := s.src.ReadByte()
	if err != nil {
		return 0, err
	}
	return b, s.took([]byte{b})
}

func (s *scanner) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	return n, errors.Join(s.took(p[:n]), err)
}

func (s *scanner) took(p []byte) error {
	s.offset += int64(len(p))
	if s.offset > s.limits.Packed {
		return fmt.Errorf("a pack of more than %d bytes: %w", s.limits.Packed, ErrLimit)
	}
	if len(s.pending)+len(p) > cap(s.pending) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if len(p) > cap(s.pending) {
		s.sum.Write(p)
		_, err := s.sink.Write(p)
		return err
	}
	s.pending = append(s.pending, p...)
	return nil
}

func (s *scanner) flush() error {
	s.sum.Write(s.pending)
	_, err := s.sink.Write(s.pending)
	s.pending = s.pending[:0]
	return err
}

// header reads the pack's first bytes and returns the number of entries.
func (s *scanner) header() (int, error) {
	var h [12]byte
	if _, err := io.ReadFull(s, h[:]); err != nil {
		return 0, fmt.Errorf("%w: %w", errPack, err)
	}
	version, count := binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:])
	if !bytes.Equal(h[:4], []byte("PACK")) || version != 2 {
		return 0, fmt.Errorf("%w: not a pack of version 2", errPack)
	}
	if uint64(count) > uint64(s.limits.Objects) {
		return 0, fmt.Errorf("a pack of %d objects: %w of %d", count, ErrLimit, s.limits.Objects)
	}
	return int(count), nil
}

// entry reads the next entry. The id is set for what is no delta.
func (s *scanner) entry() (entry, ID, error) {
	at := s.offset
	kind, size, err := entryHeader(s)
	if err != nil {
		return entry{}, ID{}, err
	}
	e := entry{offset: at, kind: kind, size: size, base: none}
	var id ID
	switch kind {
	case Commit, Tree, Blob, Tag:
		s.digest.Reset()
		s.digest.Write(header(kind, size))
		if err := s.drain(size, s.digest); err != nil {
			return e, id, err
		}
		return e, ID(s.digest.Sum(nil)), nil
	case ofsDelta:
		back, err := baseOffset(s)
		if err != nil || back <= 0 || back > at {
			return e, id, errPack
		}
		e.baseOffset = at - back
	case refDelta:
		if _, err := io.ReadFull(s, id[:]); err != nil {
			return e, id, fmt.Errorf("%w: %w", errPack, err)
		}
	default:
		return e, id, fmt.Errorf("%w: an entry of %s", errPack, kind)
	}
	return e, id, s.drain(size, io.Discard)
}

// drain inflates an entry of a known size into w.
func (s *scanner) drain(size uint64, w io.Writer) error {
	if size > uint64(s.left) {
		return fmt.Errorf("a pack of more than %d bytes when inflated: %w", s.limits.Inflated, ErrLimit)
	}
	s.left -= int64(size)
	if err := resetInflate(&s.inflate, s); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{w}, io.LimitReader(s.inflate, int64(size)+1), s.buffer)
	if err != nil {
		return inflateError(err)
	}
	if uint64(n) != size {
		return fmt.Errorf("%w: an entry of another size than declared", errPack)
	}
	return nil
}

// trailer checks the checksum behind the last entry.
func (s *scanner) trailer() error {
	if err := s.flush(); err != nil {
		return err
	}
	want := s.sum.Sum(nil)
	var got [sha1.Size]byte
	if _, err := io.ReadFull(s.src, got[:]); err != nil {
		return fmt.Errorf("%w: %w", errPack, err)
	}
	if !bytes.Equal(got[:], want) {
		return fmt.Errorf("%w: wrong checksum", errPack)
	}
	return nil
}

// onlyWriter keeps io.CopyBuffer to the buffer that it was given.
type onlyWriter struct{ io.Writer }

func resetInflate(z *io.ReadCloser, r io.Reader) error {
	if *z == nil {
		var err error
		*z, err = zlib.NewReader(r)
		return inflateError(err)
	}
	return inflateError((*z).(zlib.Resetter).Reset(r, nil))
}

// inflateError says of a stream that ended or is no zlib that the pack is to
// blame, and leaves limits and network errors as they are.
func inflateError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, zlib.ErrChecksum), errors.Is(err, zlib.ErrHeader), errors.Is(err, zlib.ErrDictionary):
		return fmt.Errorf("%w: %w", errPack, err)
	}
	return err
}

// entryHeader reads type and size.
func entryHeader(r io.ByteReader) (Type, uint64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, 0, inflateError(err)
	}
	kind, size := Type(b>>4&7), uint64(b&15)
	for shift := 4; b&0x80 != 0; shift += 7 {
		if shift > 53 {
			return 0, 0, errPack
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, 0, inflateError(err)
		}
		size |= uint64(b&0x7f) << shift
	}
	return kind, size, nil
}

// baseOffset reads how far before a delta its base lies.
func baseOffset(r io.ByteReader) (int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, err
	}
	back := int64(b & 0x7f)
	for b&0x80 != 0 {
		if back > 1<<48 {
			return 0, errPack
		}
		if b, err = r.ReadByte(); err != nil {
			return 0, err
		}
		back = (back+1)<<7 | int64(b&0x7f)
	}
	return back, nil
}
