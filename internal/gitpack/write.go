package gitpack

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
	"slices"
)

// Encode returns a pack of whole objects in the order given.
func Encode(objects []Object) ([]byte, error) {
	var out bytes.Buffer
	w, err := NewWriter(&out, len(objects), zlib.DefaultCompression)
	for i := 0; err == nil && i < len(objects); i++ {
		err = w.Add(objects[i], ID{})
	}
	if err == nil {
		_, err = w.Close()
	}
	return out.Bytes(), err
}

// Writer writes a pack of whole objects to an io.Writer, and its index.
type Writer struct {
	out     io.Writer
	sum     hash.Hash
	z       *zlib.Writer
	entry   bytes.Buffer
	offset  int64
	written []indexed
}

type indexed struct {
	id     ID
	crc    uint32
	offset int64
}

// NewWriter begins a pack of so many objects, compressed at a level of
// compress/zlib.
func NewWriter(out io.Writer, objects, level int) (*Writer, error) {
	w := &Writer{sum: sha1.New()}
	w.out = io.MultiWriter(out, w.sum)
	var err error
	if w.z, err = zlib.NewWriterLevel(&w.entry, level); err != nil {
		return nil, err
	}
	head := binary.BigEndian.AppendUint32([]byte("PACK"), 2)
	return w, w.write(binary.BigEndian.AppendUint32(head, uint32(objects)))
}

// Add writes an object. Its id matters for the index only.
func (w *Writer) Add(o Object, id ID) error {
	w.entry.Reset()
	size := uint64(len(o.Data))
	b := byte(o.Type)<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		w.entry.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	w.entry.WriteByte(b)
	w.z.Reset(&w.entry)
	if _, err := w.z.Write(o.Data); err != nil {
		return err
	}
	if err := w.z.Close(); err != nil {
		return err
	}
	w.written = append(w.written, indexed{id, crc32.ChecksumIEEE(w.entry.Bytes()), w.offset})
	return w.write(w.entry.Bytes())
}

func (w *Writer) write(p []byte) error {
	n, err := w.out.Write(p)
	w.offset += int64(n)
	return err
}

// Close ends the pack and returns its checksum, by which packs are named.
func (w *Writer) Close() (ID, error) {
	sum := ID(w.sum.Sum(nil))
	return sum, w.write(sum[:])
}

// Index returns the pack's index, version 2, given the checksum that Close
// returned. Packs of 2 GiB and more can't be indexed.
func (w *Writer) Index(pack ID) []byte {
	slices.SortFunc(w.written, func(a, b indexed) int {
		return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.offset, b.offset))
	})
	out := []byte{0xff, 't', 'O', 'c', 0, 0, 0, 2}
	next := 0
	for first := range 256 {
		for next < len(w.written) && int(w.written[next].id[0]) <= first {
			next++
		}
		out = binary.BigEndian.AppendUint32(out, uint32(next))
	}
	for _, e := range w.written {
		out = append(out, e.id[:]...)
	}
	for _, e := range w.written {
		out = binary.BigEndian.AppendUint32(out, e.crc)
	}
	for _, e := range w.written {
		out = binary.BigEndian.AppendUint32(out, uint32(e.offset))
	}
	out = append(out, pack[:]...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

// Size returns the bytes written so far.
func (w *Writer) Size() int64 { return w.offset }
