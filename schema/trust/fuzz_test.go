package trust_test

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// binned is a branch with every kind of file on the way to a manifest.
func binned(t testing.TB) (*trusttest.Repo, []string) {
	r := trusttest.New(t)
	r.NextRoot(func() {})
	r.UseBins(node)
	return r, slices.Sorted(maps.Keys(r.Files()))
}

// harmless verifies what may be damaged: the answer is the right manifest or a typed
// refusal, and never another manifest, another error, or a panic.
func harmless(t *testing.T, in trust.Input, want []byte) error {
	t.Helper()
	v, next, err := trust.Verify(in)
	switch {
	case err == nil:
		if !bytes.Equal(v.Bytes(), want) {
			t.Fatalf("another manifest was accepted:\n%s", v.Bytes())
		}
	case trust.ReasonOf(err) == v1.ReasonInternal:
		t.Fatalf("an untyped error: %v", err)
	case strings.Contains(err.Error(), "panicked") && trust.ReasonOf(err) != v1.ReasonMalformed:
		t.Fatalf("a panic became %v", err)
	}
	if _, err := trust.DecodeState(encodeState(t, next)); err != nil {
		t.Fatalf("the state can't be read back: %v", err)
	}
	return err
}

// Every file, damaged at many places in every way that a byte can be: flipped in
// its low bit, its case, its high bit, zeroed, lost, doubled, and cut off there.
func TestDamagedBytes(t *testing.T) {
	r, paths := binned(t)
	in := r.Input()
	first, state := accept(t, in)
	want := first.Bytes()
	state = reload(t, state)
	for _, path := range paths {
		data := r.Files()[path]
		step := max(1, len(data)/20)
		for at := 0; at < len(data); at += step {
			head, tail := data[:at:at], data[at+1:]
			for kind, bad := range map[string][]byte{
				"low bit":  slices.Concat(head, []byte{data[at] ^ 0x01}, tail),
				"case":     slices.Concat(head, []byte{data[at] ^ 0x20}, tail),
				"high bit": slices.Concat(head, []byte{data[at] ^ 0x80}, tail),
				"zero":     slices.Concat(head, []byte{0}, tail),
				"lost":     slices.Concat(head, tail),
				"doubled":  slices.Concat(head, []byte{data[at], data[at]}, tail),
				"cut":      head,
			} {
				in.Repository = r.Files().With(path, bad)
				in.Stored = trust.State{}
				err := harmless(t, in, want)
				if signedByHash(path) && err == nil {
					t.Fatalf("%s: byte %d, %s: accepted", path, at, kind)
				}
				in.Stored = state
				_ = harmless(t, in, want)
				if t.Failed() {
					t.Fatalf("%s: byte %d, %s", path, at, kind)
				}
			}
		}
	}
}

// signedByHash tells whether a file's very bytes are signed. Timestamp and
// roots are signed by meaning: white space in them is free, and nodes don't read root.json.
func signedByHash(path string) bool {
	return path != "metadata/timestamp.json" && !strings.HasSuffix(path, "root.json")
}

func FuzzVerify(f *testing.F) {
	r, paths := binned(f)
	in := r.Input()
	first, state, err := trust.Verify(in)
	if err != nil {
		f.Fatal(err)
	}
	for i, path := range paths {
		data := r.Files()[path]
		f.Add(uint8(i), data, true)
		f.Add(uint8(i), data[:len(data)/2], false)
		f.Add(uint8(i), bytes.ReplaceAll(data, []byte(`"version": 1`), []byte(`"version": -1`)), true)
		f.Add(uint8(i), bytes.ReplaceAll(data, []byte(`{`), []byte(`[`)), true)
	}
	for _, s := range []string{
		"", "null", "{}", "[]", `{"signed":null,"signatures":null}`, `{"signed":{"_type":"root","roles":{"root":null}},"signatures":[{"keyid":"a","sig":"0"}]}`,
		`{"signed":{"_type":"timestamp","meta":{"snapshot.json":null}},"signatures":[]}`, `{"signed":{"_type":"targets","targets":{"a":null}},"signatures":[]}`,
		`{"signed":{"_type":"targets","delegations":{"succinct_roles":{"bit_length":0}}},"signatures":[]}`, `{"signed":{"_type":"snapshot","version":1e99}}`,
		"a: &a [*a]", "---\n---\n", "\x00\xff",
	} {
		for i := range paths {
			f.Add(uint8(i), []byte(s), i%2 == 0)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte, fresh bool) {
		path := paths[int(which)%len(paths)]
		in := in
		in.Repository = r.Files().With(path, append([]byte{}, data...))
		if !fresh {
			in.Stored = state
		}
		_ = harmless(t, in, first.Bytes())
		in.BootstrapRoot = data
		_ = harmless(t, in, first.Bytes())
	})
}

func FuzzDecodeState(f *testing.F) {
	r, _ := binned(f)
	_, state, err := trust.Verify(r.Input())
	if err != nil {
		f.Fatal(err)
	}
	data, err := state.MarshalJSON()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{data, data[:100], []byte("{}"), []byte("null"), []byte(`{"version":1,"sum":"","body":null}`), []byte(`{"version":1}`)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := trust.DecodeState(data)
		if err != nil {
			if r := trust.ReasonOf(err); r != v1.ReasonStateCorrupt && r != v1.ReasonUnknownVersion {
				t.Fatalf("an untyped error: %v", err)
			}
			return
		}
		in := r.Input()
		in.Stored = s
		_, _, _ = trust.Verify(in)
		_, _ = trust.Restore(in.BootstrapRoot, s, team, node, time.Time{})
	})
}
