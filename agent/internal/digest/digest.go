// Package digest computes SHA-256 beside other work: the caller goes on
// reading, decompressing or writing while a goroutine hashes what it left
// behind. On two cores that hides most of the price of verification.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
)

const (
	// bufferSize is large enough that handing over costs nothing beside hashing.
	bufferSize = 256 << 10
	buffers    = 4
)

var valid = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Check returns an error unless s is "sha256:" and 64 lower-case hex digits.
func Check(s string) error {
	if !valid.MatchString(s) {
		return fmt.Errorf("%.100q is no digest: want sha256: and 64 lower-case hex digits", s)
	}
	return nil
}

// Hex returns the digits of a digest that passed Check.
func Hex(s string) string { return s[len("sha256:"):] }

// Of returns the digest of data.
func Of(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Hasher hashes buffers in the order in which they are put. It is for one
// goroutine at a time; Close ends its own.
type Hasher struct {
	in   chan job
	free chan []byte
	sum  chan string
}

// job is a buffer to hash, or with a nil one the wish for the sum.
type job struct{ data []byte }

// NewHasher returns a Hasher of nothing yet.
func NewHasher() *Hasher {
	h := &Hasher{
		in:   make(chan job, buffers+1),
		free: make(chan []byte, buffers),
		sum:  make(chan string),
	}
	for range buffers {
		h.free <- make([]byte, bufferSize)
	}
	go h.run(sha256.New())
	return h
}

func (h *Hasher) run(state hash.Hash) {
	for j := range h.in {
		if j.data == nil {
			h.sum <- "sha256:" + hex.EncodeToString(state.Sum(nil))
			state.Reset()
			continue
		}
		state.Write(j.data) // a hash.Hash never fails
		h.free <- j.data[:cap(j.data)]
	}
}

// Buffer waits for a free buffer. It must go back through Put.
func (h *Hasher) Buffer() []byte { return <-h.free }

// Put hands over a buffer that Buffer returned, cut to what is to be hashed.
// Its bytes must not be changed any more; they may be read until the next
// call of Buffer.
func (h *Hasher) Put(data []byte) {
	if data == nil {
		data = []byte{}
	}
	h.in <- job{data}
}

// Sum returns the digest of all that was put since the last Sum, and begins anew.
func (h *Hasher) Sum() string {
	h.in <- job{}
	return <-h.sum
}

// Close ends the goroutine. Nothing may be called after it.
func (h *Hasher) Close() { close(h.in) }

// Reader hashes all that is read through it, also what it read ahead.
type Reader struct {
	src    io.Reader
	hasher *Hasher
	buffer []byte
	at, n  int
	size   int64
}

// NewReader returns a Reader of src. Close must be called.
func NewReader(src io.Reader) *Reader {
	h := NewHasher()
	return &Reader{src: src, hasher: h, buffer: h.Buffer()}
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.at == r.n {
		r.hasher.Put(r.buffer[:r.n])
		r.buffer, r.at, r.n = r.hasher.Buffer(), 0, 0
		n, err := r.src.Read(r.buffer)
		r.n, r.size = n, r.size+int64(n)
		if n == 0 {
			return 0, err
		}
		// An error beside data comes again at the next read.
	}
	n := copy(p, r.buffer[r.at:r.n])
	r.at += n
	return n, nil
}

// Size returns how many bytes were read from src so far.
func (r *Reader) Size() int64 { return r.size }

// Sum reads src to its end and returns the digest and the size of everything.
func (r *Reader) Sum() (string, int64, error) {
	r.at = r.n
	for {
		_, err := r.Read(r.buffer[:0])
		r.at = r.n
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", 0, err
		}
	}
	return r.hasher.Sum(), r.size, nil
}

// Close ends the Reader's goroutine. It doesn't close src.
func (r *Reader) Close() { r.hasher.Close() }
