package store_test

import (
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/store"
)

// FuzzUnpackCompressed holds any compressed layer to the same as FuzzUnpack: nothing is
// left of one that is refused.
func FuzzUnpackCompressed(f *testing.F) {
	good := usual(f)
	for _, data := range [][]byte{gzipped(f, good), gzipped(f, good)[:40], good, nil} {
		f.Add(data, false)
	}
	for _, data := range [][]byte{zstded(f, good), zstded(f, good)[:40], {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8, 0x01, 0, 0}} {
		f.Add(data, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, zstd bool) {
		s, root := open(t, func(o *store.Options) { o.Limits = store.Limits{Entries: 50, Bytes: 1 << 20} })
		mediaType := gzipTar
		if zstd {
			mediaType = zstdTar
		}
		p := pkg("fuzz", layer(t, mediaType, data))
		if err := s.Unpack(t.Context(), p); err != nil {
			nothingLeft(t, root)
			return
		}
		if diffs, err := s.Check("thing", p.Digest, true); err != nil || len(diffs) > 0 {
			t.Errorf("%v, %v", diffs, err)
		}
	})
}
