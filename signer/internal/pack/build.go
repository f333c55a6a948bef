package pack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/gpuaas/node-agent/internal/durable"
)

// MetadataVersion is the version of Config that this code writes.
const MetadataVersion = 1

// Config is the config blob of a package: what is in it, for people, for the
// agent's checks before it unpacks, and for tools.
type Config struct {
	MetadataVersion int    `json:"metadataVersion"`
	Name            string `json:"name"`
	Version         string `json:"version"`
	// OS and Architecture are empty in a package for all platforms.
	OS           string   `json:"os,omitempty"`
	Architecture string   `json:"architecture,omitempty"`
	Variant      string   `json:"variant,omitempty"`
	EntryPoints  []string `json:"entryPoints,omitempty"`
	Units        []string `json:"units,omitempty"`
	// Entries and UnpackedSize are what unpacking makes: files, folders and
	// symlinks; bytes of files.
	Entries      int   `json:"entries"`
	UnpackedSize int64 `json:"unpackedSize"`
	// DiffIDs are the digests of the uncompressed layers.
	DiffIDs []string `json:"diffIDs"`
}

// BuildOptions of Build.
type BuildOptions struct {
	// Compression defaults to Gzip.
	Compression Compression
	// Time of every entry; the zero value means 1970-01-01.
	Time time.Time
	// Progress, when set, is told the bytes read so far and their total.
	Progress func(done, total int64)
}

// Build packages dir, a folder with a package.yaml, into the OCI image layout
// out, and says what it built. out must not exist, or be empty, or be a layout,
// which is replaced. Nothing is left behind when it fails.
func Build(dir, out string, opts BuildOptions) (*Info, error) {
	if opts.Compression == "" {
		opts.Compression = Gzip
	}
	if opts.Time.IsZero() {
		opts.Time = time.Unix(0, 0)
	}
	opts.Time = opts.Time.UTC().Truncate(time.Second)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the package's folder: %w", err)
	}
	defer func() { _ = root.Close() }()
	src, err := ReadSource(root)
	if err != nil {
		return nil, err
	}
	if err := checkOut(out); err != nil {
		return nil, err
	}
	b := &builder{src: src, opts: opts}
	defer func() { _ = b.close() }()
	if err := b.open(root); err != nil {
		return nil, err
	}
	if err := b.build(out); err != nil {
		return nil, err
	}
	return Inspect(out)
}

// checkOut accepts what Build may replace.
func checkOut(out string) error {
	entries, err := os.ReadDir(out)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	if _, err := os.Stat(filepath.Join(out, layoutFile)); err != nil {
		return fmt.Errorf("cannot write the layout to %s: it holds other files; name a new folder", out)
	}
	return nil
}

type builder struct {
	src      *Source
	opts     BuildOptions
	variants []variant
	trees    []*tree
	total    int64
	done     int64
}

// open reads and checks every tree before anything is written.
func (b *builder) open(root *os.Root) error {
	b.variants = b.src.variants()
	var bad []error
	for _, v := range b.variants {
		t, err := openTree(root, v.folders)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		b.trees = append(b.trees, t)
		b.total += t.size
		if err := t.checkDeclared(b.src, v); err != nil {
			bad = append(bad, err)
		}
	}
	return errors.Join(bad...)
}

func (b *builder) close() error {
	var errs []error
	for _, t := range b.trees {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

func (b *builder) progress(n int64) {
	b.done += n
	if b.opts.Progress != nil {
		b.opts.Progress(b.done, b.total)
	}
}

// build writes the layout beside out and then puts it in its place.
func (b *builder) build(out string) (err error) {
	out = filepath.Clean(out)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(out), durable.TempPrefix)
	if err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	// MkdirTemp makes it private; a layout is nothing secret.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	l := &layoutWriter{dir: tmp}
	top, err := b.write(l)
	if err != nil {
		return err
	}
	if err := l.finish(top, b.src.Version); err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return fmt.Errorf("cannot replace the layout %s: %w", out, err)
	}
	if err := os.Rename(tmp, out); err != nil {
		return fmt.Errorf("cannot replace the layout %s: %w", out, err)
	}
	return durable.SyncDir(filepath.Dir(out))
}

// write writes all blobs and returns the descriptor of the package.
func (b *builder) write(l *layoutWriter) (oci.Descriptor, error) {
	var all []oci.Descriptor
	for i, v := range b.variants {
		d, err := b.writeVariant(l, v, b.trees[i])
		if err != nil {
			return oci.Descriptor{}, err
		}
		all = append(all, d)
	}
	if len(b.src.Platforms) < 2 {
		return all[0], nil
	}
	return l.writeJSON(types.OCIImageIndex, oci.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		ArtifactType:  ArtifactType,
		Manifests:     all,
		Annotations:   b.annotations(),
	})
}

func (b *builder) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":   b.src.Name,
		"org.opencontainers.image.version": b.src.Version,
	}
}

func (b *builder) writeVariant(l *layoutWriter, v variant, t *tree) (oci.Descriptor, error) {
	var info layerInfo
	err := l.writeBlob(func(w io.Writer) (string, error) {
		var err error
		info, err = writeLayer(w, t, b.opts.Compression, b.opts.Time, b.progress)
		return info.digest, err
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	config := Config{
		MetadataVersion: MetadataVersion,
		Name:            b.src.Name,
		Version:         b.src.Version,
		EntryPoints:     b.src.EntryPoints,
		Units:           b.src.Units,
		Entries:         len(t.entries),
		UnpackedSize:    t.size,
		DiffIDs:         []string{info.diffID},
	}
	title := b.src.Name + "-" + b.src.Version
	var platform *oci.Platform
	if v.platform != "" {
		platform = parsePlatform(v.platform)
		config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
		title += "-" + strings.ReplaceAll(v.platform, "/", "-")
	}
	configDesc, err := l.writeJSON(ConfigMediaType, config)
	if err != nil {
		return oci.Descriptor{}, err
	}
	layerHash, err := oci.NewHash(info.digest)
	if err != nil {
		return oci.Descriptor{}, fmt.Errorf("cannot describe the layer: %w", err)
	}
	d, err := l.writeJSON(types.OCIManifestSchema1, oci.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  ArtifactType,
		Config:        configDesc,
		Layers: []oci.Descriptor{{
			MediaType:   types.MediaType(b.opts.Compression.mediaType()),
			Digest:      layerHash,
			Size:        info.size,
			Annotations: map[string]string{"org.opencontainers.image.title": title + b.opts.Compression.extension()},
		}},
		Annotations: b.annotations(),
	})
	d.ArtifactType, d.Platform = ArtifactType, platform
	return d, err
}

func parsePlatform(s string) *oci.Platform {
	parts := append(strings.Split(s, "/"), "")
	return &oci.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

func marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("cannot encode: %w", err)
	}
	return data, nil
}
