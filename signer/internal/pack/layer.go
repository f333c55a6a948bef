package pack

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Compression of layers.
type Compression string

// The compressions.
const (
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// Media types of a package.
const (
	ArtifactType    = "application/vnd.gpuaas.package.v1"
	ConfigMediaType = "application/vnd.gpuaas.package.config.v1+json"

	layerGzip = "application/vnd.oci.image.layer.v1.tar+gzip"
	layerZstd = "application/vnd.oci.image.layer.v1.tar+zstd"
)

// gzipLevel is part of what makes a digest: changing it changes every package.
const gzipLevel = 6

func (c Compression) mediaType() string {
	if c == Zstd {
		return layerZstd
	}
	return layerGzip
}

func (c Compression) extension() string {
	if c == Zstd {
		return ".tar.zst"
	}
	return ".tar.gz"
}

// writer compresses to w, the same bytes for the same input on any machine.
func (c Compression) writer(w io.Writer) (io.WriteCloser, error) {
	if c == Zstd {
		// One thread: blocks must not depend on the number of processors.
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	}
	return gzip.NewWriterLevel(w, gzipLevel)
}

// digester hashes and counts what passes.
type digester struct {
	h hash.Hash
	n int64
}

func newDigester() *digester { return &digester{h: sha256.New()} }

func (d *digester) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	return d.h.Write(p)
}

func (d *digester) digest() string { return "sha256:" + hex.EncodeToString(d.h.Sum(nil)) }

// layerInfo is what writing a layer found out.
type layerInfo struct {
	digest, diffID string
	size           int64
}

// writeLayer writes the tree as a compressed tar. Every entry has the time at
// and owner 0; progress is told the uncompressed bytes.
func writeLayer(w io.Writer, t *tree, c Compression, at time.Time, progress func(int64)) (layerInfo, error) {
	packed, plain := newDigester(), newDigester()
	z, err := c.writer(io.MultiWriter(w, packed))
	if err != nil {
		return layerInfo{}, fmt.Errorf("cannot compress: %w", err)
	}
	tw := tar.NewWriter(io.MultiWriter(z, plain))
	for _, e := range t.entries {
		if err := writeEntry(tw, e, at, progress); err != nil {
			return layerInfo{}, fmt.Errorf("cannot package %s: %w", e.path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return layerInfo{}, fmt.Errorf("cannot finish the layer: %w", err)
	}
	if err := z.Close(); err != nil {
		return layerInfo{}, fmt.Errorf("cannot finish the layer: %w", err)
	}
	return layerInfo{digest: packed.digest(), diffID: plain.digest(), size: packed.n}, nil
}

func writeEntry(tw *tar.Writer, e entry, at time.Time, progress func(int64)) error {
	h := &tar.Header{Name: e.path, ModTime: at, Mode: 0o644, Typeflag: tar.TypeReg, Size: e.size}
	switch {
	case e.kind == fs.ModeDir:
		h.Name, h.Typeflag, h.Mode = e.path+"/", tar.TypeDir, 0o755
	case e.kind == fs.ModeSymlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.link, 0o777
	case e.exec:
		h.Mode = 0o755
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := e.root.Open(e.path)
	if err != nil {
		return err
	}
	n, err := io.Copy(tw, &countingReader{r: f, progress: progress})
	if err := closeAfter(f, err); err != nil {
		return err
	}
	if n != e.size {
		return fmt.Errorf("it changed while it was read (%d bytes, then %d); build again", e.size, n)
	}
	return nil
}

type countingReader struct {
	r        io.Reader
	progress func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.progress(int64(n))
	return n, err
}
