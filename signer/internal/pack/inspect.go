package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	oci "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Limits on what Inspect reads; far above what Build writes.
const (
	maxManifest  = 4 << 20
	maxConfig    = 1 << 20
	maxPlatforms = 100
)

// Info is what a package says of itself.
type Info struct {
	// Reference is the layout's path, or repository@digest.
	Reference string `json:"reference" yaml:"reference"`
	// Digest is what fleet repos pin.
	Digest    string         `json:"digest" yaml:"digest"`
	MediaType string         `json:"mediaType" yaml:"mediaType"`
	Name      string         `json:"name" yaml:"name"`
	Version   string         `json:"version" yaml:"version"`
	Platforms []PlatformInfo `json:"platforms" yaml:"platforms"`
}

// PlatformInfo is one platform of a package.
type PlatformInfo struct {
	// Platform is "os/arch", or "any".
	Platform     string      `json:"platform" yaml:"platform"`
	Digest       string      `json:"digest" yaml:"digest"`
	EntryPoints  []string    `json:"entryPoints,omitempty" yaml:"entryPoints,omitempty"`
	Units        []string    `json:"units,omitempty" yaml:"units,omitempty"`
	Entries      int         `json:"entries" yaml:"entries"`
	UnpackedSize int64       `json:"unpackedSize" yaml:"unpackedSize"`
	Layers       []LayerInfo `json:"layers" yaml:"layers"`
}

// LayerInfo is one layer.
type LayerInfo struct {
	MediaType string `json:"mediaType" yaml:"mediaType"`
	Digest    string `json:"digest" yaml:"digest"`
	Size      int64  `json:"size" yaml:"size"`
}

// PlatformNames are the platforms that the package is built for; none when it
// is for all.
func (i *Info) PlatformNames() []string {
	var names []string
	for _, p := range i.Platforms {
		if p.Platform != anyPlatform {
			names = append(names, p.Platform)
		}
	}
	return names
}

const anyPlatform = "any"

// Inspect reads the package in the OCI layout at dir.
func Inspect(dir string) (*Info, error) {
	art, err := openLayout(dir)
	if err != nil {
		return nil, err
	}
	info, err := art.info()
	if err != nil {
		return nil, fmt.Errorf("cannot read the package in %s: %w", dir, err)
	}
	info.Reference = dir
	return info, nil
}

// InspectRemote reads the package at ref, "repository@sha256:..." or "repository:tag".
func InspectRemote(ctx context.Context, ref string, opts RemoteOptions) (*Info, error) {
	r, err := name.ParseReference(ref, append(opts.nameOptions(), name.StrictValidation)...)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect %q: it is neither an OCI layout nor a reference like registry/repository@sha256:…: %w", ref, err)
	}
	desc, err := remote.Get(r, opts.remoteOptions(ctx)...)
	if err != nil {
		return nil, explain("inspect "+ref, err)
	}
	art, err := remoteArtifact(desc)
	if err != nil {
		return nil, fmt.Errorf("cannot inspect %s: %w", ref, err)
	}
	info, err := art.info()
	if err != nil {
		return nil, fmt.Errorf("cannot inspect %s: %w", ref, err)
	}
	info.Reference = r.Context().Name() + "@" + info.Digest
	return info, nil
}

// An artifact is a package wherever it is: an index, or else an image.
type artifact struct {
	desc  oci.Descriptor
	index oci.ImageIndex
	image oci.Image
}

func openLayout(dir string) (*artifact, error) {
	if _, err := os.Stat(filepath.Join(dir, layoutFile)); err != nil {
		return nil, fmt.Errorf("cannot read the layout %s: %w", dir, err)
	}
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the layout %s: %w", dir, err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("cannot read the layout %s: %w", dir, err)
	}
	if len(m.Manifests) != 1 {
		return nil, fmt.Errorf("cannot read the layout %s: it holds %d artifacts, and a package's layout holds one", dir, len(m.Manifests))
	}
	art := &artifact{desc: m.Manifests[0]}
	switch art.desc.MediaType {
	case types.OCIImageIndex:
		art.index, err = idx.ImageIndex(art.desc.Digest)
	case types.OCIManifestSchema1:
		art.image, err = idx.Image(art.desc.Digest)
	default:
		err = fmt.Errorf("found media type %q", art.desc.MediaType)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the layout %s: %w", dir, err)
	}
	return art, nil
}

func remoteArtifact(desc *remote.Descriptor) (*artifact, error) {
	art := &artifact{desc: desc.Descriptor}
	if len(desc.Manifest) > maxManifest {
		return nil, fmt.Errorf("its manifest is larger than %d bytes", maxManifest)
	}
	var err error
	switch desc.MediaType {
	case types.OCIImageIndex:
		art.index, err = desc.ImageIndex()
	case types.OCIManifestSchema1:
		art.image, err = desc.Image()
	default:
		err = fmt.Errorf("it is a %s, not a package", desc.MediaType)
	}
	return art, err
}

func (a *artifact) info() (*Info, error) {
	info := &Info{Digest: a.desc.Digest.String(), MediaType: string(a.desc.MediaType)}
	if a.image != nil {
		return info, info.add(a.image, a.desc)
	}
	m, err := a.index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if m.ArtifactType != ArtifactType {
		return nil, notPackage(m.ArtifactType)
	}
	if len(m.Manifests) > maxPlatforms {
		return nil, fmt.Errorf("it has %d platforms; more than %d are refused", len(m.Manifests), maxPlatforms)
	}
	for _, d := range m.Manifests {
		img, err := a.index.Image(d.Digest)
		if err != nil {
			return nil, err
		}
		if err := info.add(img, d); err != nil {
			return nil, err
		}
	}
	return info, nil
}

func notPackage(artifactType string) error {
	if artifactType == "" {
		return errors.New("it is an image, not a package: it has no artifactType")
	}
	return fmt.Errorf("it is not a package: its artifactType is %q and not %q", artifactType, ArtifactType)
}

// add reads one platform.
func (i *Info) add(img oci.Image, d oci.Descriptor) error {
	m, err := img.Manifest()
	if err != nil {
		return err
	}
	if m.ArtifactType != ArtifactType {
		return notPackage(m.ArtifactType)
	}
	if m.Config.MediaType != ConfigMediaType {
		return fmt.Errorf("its config is a %q; this version knows %q", m.Config.MediaType, ConfigMediaType)
	}
	if m.Config.Size > maxConfig {
		return fmt.Errorf("its config is larger than %d bytes", maxConfig)
	}
	raw, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return fmt.Errorf("cannot read its config: %w", err)
	}
	if c.MetadataVersion > MetadataVersion {
		return fmt.Errorf("its metadata version is %d; this version knows %d", c.MetadataVersion, MetadataVersion)
	}
	i.Name, i.Version = c.Name, c.Version
	p := PlatformInfo{
		Platform: anyPlatform, Digest: d.Digest.String(), EntryPoints: c.EntryPoints, Units: c.Units,
		Entries: c.Entries, UnpackedSize: c.UnpackedSize,
	}
	if c.OS != "" {
		p.Platform = (&oci.Platform{OS: c.OS, Architecture: c.Architecture, Variant: c.Variant}).String()
	}
	for _, l := range m.Layers {
		p.Layers = append(p.Layers, LayerInfo{MediaType: string(l.MediaType), Digest: l.Digest.String(), Size: l.Size})
	}
	i.Platforms = append(i.Platforms, p)
	return nil
}
