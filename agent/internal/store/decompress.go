package store

import (
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow is the largest zstd window that is decoded, that of level 22; it
	// is what bounds the memory.
	maxWindow = 128 << 20
	// ratioSlack is how much may be unpacked before the ratio is looked at.
	ratioSlack = 64 << 20
)

// decompress returns the tar stream in packed. Closing it doesn't close packed.
func decompress(mediaType string, packed io.Reader) (io.ReadCloser, error) {
	switch {
	case strings.HasSuffix(mediaType, ".tar+gzip"):
		// This one takes three quarters of the standard library's time.
		return gzip.NewReader(packed)
	case strings.HasSuffix(mediaType, ".tar+zstd"):
		d, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case strings.HasSuffix(mediaType, ".tar"):
		return io.NopCloser(packed), nil
	}
	return nil, refuse("its media type %q is unknown; known are those that end in .tar, .tar+gzip, .tar+zstd", mediaType)
}

// meter holds a decompressed stream to the limits, headers and padding included.
type meter struct {
	r         io.Reader
	limits    Limits
	extractor *extractor
	// packed returns how many compressed bytes were read so far.
	packed func() int64
	n      int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	m.extractor.bytes += int64(n)
	if m.extractor.bytes > m.limits.Bytes {
		return 0, refuse("the package unpacks to more than %d bytes, the limit of this node's configuration", m.limits.Bytes)
	}
	if over := m.n - ratioSlack; over > 0 && over/m.limits.Ratio > m.packed() {
		return 0, refuse("more than %d bytes come of each compressed one: that is no package but a decompression bomb", m.limits.Ratio)
	}
	return n, err
}
