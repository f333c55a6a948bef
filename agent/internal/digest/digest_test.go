package digest_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/gpuaas/node-agent/agent/internal/digest"
)

func TestCheck(t *testing.T) {
	good := digest.Of([]byte("x"))
	if err := digest.Check(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", "sha256:", good[7:], strings.ToUpper(good), good + "0", good + "\n",
		"sha512:" + good[7:], "sha256:../../" + good[13:],
	} {
		if digest.Check(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func random(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return data
}

func TestHasherBeginsAnewAfterSum(t *testing.T) {
	h := digest.NewHasher()
	defer h.Close()
	for _, size := range []int{0, 1, 1000, 256 << 10, 256<<10 + 1, 3 << 20} {
		data := random(size)
		for rest := data; len(rest) > 0; {
			buffer := h.Buffer()
			n := copy(buffer, rest)
			h.Put(buffer[:n])
			rest = rest[n:]
		}
		if got := h.Sum(); got != digest.Of(data) {
			t.Errorf("size %d: %s", size, got)
		}
	}
}

func TestReaderHashesWhatWasNotRead(t *testing.T) {
	data := random(1 << 20)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r },
		"half":  iotest.HalfReader,
		"eof":   iotest.DataErrReader,
	} {
		for _, take := range []int{0, 1, 300_000, len(data)} {
			r := digest.NewReader(wrap(bytes.NewReader(data)))
			got := make([]byte, take)
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, data[:take]) {
				t.Fatalf("%s, %d: wrong bytes, %v", name, take, err)
			}
			sum, size, err := r.Sum()
			if err != nil || size != int64(len(data)) || sum != digest.Of(data) {
				t.Errorf("%s, %d: %s of %d, %v", name, take, sum, size, err)
			}
			r.Close()
		}
	}
}

func TestReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	r := digest.NewReader(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)))
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if _, _, err := r.Sum(); !errors.Is(err, broken) {
		t.Errorf("Sum gave %v", err)
	}
}
