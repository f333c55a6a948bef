package fetch

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// The media types of a package. They are those of signer/internal/pack.
const (
	ArtifactType    = "application/vnd.gpuaas.package.v1"
	ConfigMediaType = "application/vnd.gpuaas.package.config.v1+json"
)

// metadataVersion is the newest config that this code understands.
const metadataVersion = 1

// LayerMediaTypes returns the accepted types of layers, sorted.
func LayerMediaTypes() []string {
	var all []string
	for _, base := range []string{"application/vnd.gpuaas.package.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar"} {
		all = append(all, base, base+"+gzip", base+"+zstd")
	}
	return all
}

// document is a manifest or an index, its digests known to be well-formed.
type document struct {
	artifactType string
	manifests    []oci.Descriptor // of an index
	config       *oci.Descriptor  // of a manifest
	layers       []oci.Descriptor
}

// parse reads an OCI manifest or index. What could be read as either is
// refused, so that no two readers can see different packages in it.
func parse(data []byte) (document, error) {
	var raw struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     types.MediaType  `json:"mediaType"`
		ArtifactType  string           `json:"artifactType"`
		Manifests     []oci.Descriptor `json:"manifests"`
		Config        *oci.Descriptor  `json:"config"`
		Layers        []oci.Descriptor `json:"layers"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return document{}, fmt.Errorf("the manifest is no valid JSON: %w", err)
	}
	d := document{artifactType: raw.ArtifactType, manifests: raw.Manifests, config: raw.Config, layers: raw.Layers}
	if raw.SchemaVersion != 2 {
		return d, fmt.Errorf("the manifest has schemaVersion %d; want 2", raw.SchemaVersion)
	}
	switch raw.MediaType {
	case types.OCIImageIndex:
		if raw.Config != nil || raw.Layers != nil {
			return d, errors.New("the index has also a config or layers")
		}
	case types.OCIManifestSchema1:
		if raw.Manifests != nil {
			return d, errors.New("the manifest has also a list of manifests")
		}
		if raw.Config == nil {
			return d, errors.New("the manifest has no config")
		}
	default:
		return d, fmt.Errorf("the manifest has media type %q; want %s or %s", raw.MediaType, types.OCIManifestSchema1, types.OCIImageIndex)
	}
	return d, checkDescriptors(d)
}

func checkDescriptors(d document) error {
	all := slices.Concat(d.manifests, d.layers)
	if d.config != nil {
		all = append(all, *d.config)
	}
	for _, desc := range all {
		if err := digest.Check(desc.Digest.String()); err != nil {
			return err
		}
		if desc.Size < 0 {
			return fmt.Errorf("%s has size %d", desc.Digest, desc.Size)
		}
	}
	return nil
}

// selectPlatform returns the manifest of an index that serves p: the first
// that matches, since the order of an index is one of preference.
func (d document) selectPlatform(p Platform) (oci.Descriptor, error) {
	var have []string
	for _, m := range d.manifests {
		if m.Platform == nil {
			continue
		}
		got := Platform{m.Platform.OS, m.Platform.Architecture, m.Platform.Variant}
		if p.accepts(got) {
			return m, checkSize("the manifest", m, MaxManifest)
		}
		have = append(have, got.String())
	}
	slices.Sort(have)
	return oci.Descriptor{}, unsupported(p, slices.Compact(have))
}

// accepts reports whether something for got runs on p. What names no variant
// runs on all of them, and a node that names none takes the first.
func (p Platform) accepts(got Platform) bool {
	return got.OS == p.OS && got.Architecture == p.Architecture &&
		(got.Variant == p.Variant || got.Variant == "" || p.Variant == "")
}

func unsupported(p Platform, have []string) *host.Error {
	list := "none at all"
	if len(have) > 0 {
		list = strings.Join(have, ", ")
	}
	return &host.Error{Component: component, Reason: v1.ReasonPlatform, Err: fmt.Errorf(
		"the package has no build for this node's platform %s; it has: %s; build it for %s too, or pin another digest", p, list, p)}
}

// checkPackage holds a manifest against the limits of what a package may be.
func (d document) checkPackage(maxSize int64) error {
	if d.artifactType != ArtifactType {
		return invalid(fmt.Errorf("the artifact type is %q; a package has %s; build it with `gpuaas-signer package build`", d.artifactType, ArtifactType))
	}
	if err := checkSize("the config", *d.config, MaxConfig); err != nil {
		return err
	}
	if len(d.layers) == 0 || len(d.layers) > MaxLayers {
		return invalid(fmt.Errorf("the package has %d layers; want 1 to %d", len(d.layers), MaxLayers))
	}
	accepted := LayerMediaTypes()
	var total int64
	for i, l := range d.layers {
		if !slices.Contains(accepted, string(l.MediaType)) {
			return invalid(fmt.Errorf("layer %d has media type %q; accepted are %s", i, l.MediaType, strings.Join(accepted, ", ")))
		}
		if l.Size > maxSize-total {
			return invalid(fmt.Errorf("the package's layers are larger than %d bytes, the limit of this node's configuration", maxSize))
		}
		total += l.Size
	}
	return nil
}

func checkSize(what string, d oci.Descriptor, limit int64) error {
	if d.Size > limit {
		return invalid(fmt.Errorf("%s %s has %d bytes; the limit is %d", what, d.Digest, d.Size, limit))
	}
	return nil
}

// parseMetadata reads the config blob.
func parseMetadata(mediaType types.MediaType, data []byte, p Platform) (Metadata, error) {
	var m Metadata
	if mediaType != ConfigMediaType {
		return m, nil
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, invalid(fmt.Errorf("the package's config is no valid JSON: %w", err))
	}
	if m.MetadataVersion > metadataVersion {
		return m, invalid(fmt.Errorf("the package's config has metadataVersion %d; this agent knows up to %d: update the agent first",
			m.MetadataVersion, metadataVersion))
	}
	got := Platform{m.OS, m.Architecture, m.Variant}
	if m.OS != "" && !p.accepts(got) {
		return m, unsupported(p, []string{got.String()})
	}
	return m, nil
}

// kind is a sort of small blob: how registries call it, and its cap in bytes.
type kind struct {
	name  string
	limit int64
}

var (
	manifestKind = kind{"manifests", MaxManifest}
	configKind   = kind{"blobs", MaxConfig}
)

// A reader returns the verified bytes of a blob: those in the folder, or those
// that it downloads into it.
type reader interface {
	read(k kind, dgst string) ([]byte, error)
	// prepare hears of all layers before the first.
	prepare(layers []oci.Descriptor) error
	// layer makes sure that the blob is there and returns its file.
	layer(d oci.Descriptor) (string, error)
}

// resolve walks from a digest to the layers for a platform. It is the same
// walk for who only looks and for who downloads.
func resolve(dgst string, p Platform, maxSize int64, from reader) (Artifact, error) {
	a := Artifact{Digest: dgst, Manifest: dgst}
	d, err := readDocument(dgst, from)
	if err != nil {
		return a, err
	}
	if d.config == nil {
		desc, err := d.selectPlatform(p)
		if err != nil {
			return a, err
		}
		a.Manifest = desc.Digest.String()
		if d, err = readDocument(a.Manifest, from); err != nil {
			return a, err
		}
		if d.config == nil {
			return a, invalid(errors.New("the index holds another index; want one manifest per platform"))
		}
	}
	if err := d.checkPackage(maxSize); err != nil {
		return a, err
	}
	config, err := from.read(configKind, d.config.Digest.String())
	if err != nil {
		return a, err
	}
	if a.Metadata, err = parseMetadata(d.config.MediaType, config, p); err != nil {
		return a, err
	}
	return a, a.addLayers(d.layers, from)
}

func readDocument(dgst string, from reader) (document, error) {
	data, err := from.read(manifestKind, dgst)
	if err != nil {
		return document{}, err
	}
	d, err := parse(data)
	if err != nil {
		return d, invalid(fmt.Errorf("%s: %w", dgst, err))
	}
	return d, nil
}

func (a *Artifact) addLayers(descs []oci.Descriptor, from reader) error {
	if err := from.prepare(descs); err != nil {
		return err
	}
	for _, desc := range descs {
		path, err := from.layer(desc)
		if err != nil {
			return err
		}
		a.Layers = append(a.Layers, Layer{MediaType: string(desc.MediaType), Path: path, Digest: desc.Digest.String(), Size: desc.Size})
	}
	return nil
}
