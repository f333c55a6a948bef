package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/gpuaas/node-agent/internal/durable"
)

// layoutFile marks a folder as an OCI image layout.
const layoutFile = "oci-layout"

// refNameAnnotation is how a layout's index names what it holds.
const refNameAnnotation = "org.opencontainers.image.ref.name"

// layoutWriter writes an OCI image layout (image-spec, image-layout.md).
type layoutWriter struct{ dir string }

// writeBlob streams a blob into the layout; fill returns its digest.
func (l *layoutWriter) writeBlob(fill func(io.Writer) (string, error)) error {
	blobs := filepath.Join(l.dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	f, err := os.CreateTemp(blobs, durable.TempPrefix)
	if err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	digest, err := fill(f)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := closeAfter(f, err); err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	hash, err := oci.NewHash(digest)
	if err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	if err := os.Rename(f.Name(), filepath.Join(blobs, hash.Hex)); err != nil {
		return fmt.Errorf("cannot write the layout: %w", err)
	}
	return nil
}

// writeJSON writes v as a blob and returns its descriptor.
func (l *layoutWriter) writeJSON(mediaType types.MediaType, v any) (oci.Descriptor, error) {
	data, err := marshal(v)
	if err != nil {
		return oci.Descriptor{}, err
	}
	sum := sha256.Sum256(data)
	d := oci.Descriptor{
		MediaType: mediaType,
		Size:      int64(len(data)),
		Digest:    oci.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
	}
	return d, l.writeBlob(func(w io.Writer) (string, error) {
		_, err := io.Copy(w, bytes.NewReader(data))
		return d.Digest.String(), err
	})
}

// finish writes index.json and the marker.
func (l *layoutWriter) finish(top oci.Descriptor, refName string) error {
	top.Annotations = map[string]string{refNameAnnotation: refName}
	index, err := marshal(oci.IndexManifest{
		SchemaVersion: 2,
		MediaType:     types.OCIImageIndex,
		Manifests:     []oci.Descriptor{top},
	})
	if err != nil {
		return err
	}
	mode := durable.Options{Mode: 0o644}
	if err := durable.WriteFile(filepath.Join(l.dir, "index.json"), index, mode); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(l.dir, layoutFile), []byte(`{"imageLayoutVersion":"1.0.0"}`), mode)
}
