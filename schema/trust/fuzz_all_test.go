package trust_test

import (
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// FuzzVerifyAll holds what a signer builds on, and what was published before it, to: verified or a typed
// refusal. Whoever can push to the signed branch chooses both.
func FuzzVerifyAll(f *testing.F) {
	r, paths := binned(f)
	for i, path := range paths {
		data := r.Files()[path]
		f.Add(uint8(i), data, true)
		f.Add(uint8(i), data[:len(data)/2], false)
		f.Add(uint8(i), []byte(`{"signed":{"meta":{"fleet.json":null},"targets":{"x":null}}}`), true)
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte, published bool) {
		changed := r.Files().With(paths[int(which)%len(paths)], append([]byte{}, data...))
		files, opts := changed, trust.AllOptions{Now: trusttest.Start}
		if published {
			files, opts.Previous = r.Files(), changed
		}
		if _, err := trust.VerifyAll(r.Bootstrap(), files, opts); err != nil && trust.ReasonOf(err) == v1.ReasonInternal {
			t.Errorf("an untyped error: %v", err)
		}
	})
}
