package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/child"
	"github.com/gpuaas/node-agent/agent/internal/digest"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// ChildCommand is the hidden command that must call RunChild.
const ChildCommand = "package-fetch"

// Caps of what a package may hold.
const (
	// MaxManifest bounds a manifest and an index, in bytes.
	MaxManifest = 4 << 20
	// MaxConfig bounds the config blob, in bytes.
	MaxConfig = 1 << 20
	// MaxLayers bounds how many layers a package has.
	MaxLayers = 128
	// DefaultMaxSize bounds all layers of a package together, in bytes.
	DefaultMaxSize = 16 << 30
)

// Config of a Fetcher. All but BlobDir may be left zero.
type Config struct {
	// BlobDir is where blobs are kept, an absolute path; the first download makes
	// it. It belongs to one agent, whose lock keeps others away.
	BlobDir string `json:"blobDir"`
	// Registries has an entry for each host that needs settings of its own.
	Registries []Registry `json:"registries,omitempty"`
	// AuthFile is a Docker config.json with credentials; "" means none.
	AuthFile string `json:"authFile,omitempty"`
	// AllowPrivateRedirects lets a registry send clients to a literal private,
	// loopback or link-local address. A registry's own address may always be one.
	AllowPrivateRedirects bool `json:"allowPrivateRedirects,omitempty"`
	// MaxSize caps a package's layers together, in bytes.
	MaxSize int64 `json:"maxSize,omitempty"`
	// MinFree is how many bytes of the disk a download must leave free.
	MinFree int64 `json:"minFree,omitempty"`
	// StallTimeout ends an attempt in which nothing arrives for so long; default 30 s.
	StallTimeout time.Duration `json:"stallTimeout,omitempty"`
	// Attempts is how often a request is tried without any progress; default 5.
	Attempts int `json:"attempts,omitempty"`
	// Backoff is the pause after the first failed attempt; it doubles each time,
	// up to 30 s. Default 500 ms.
	Backoff time.Duration `json:"backoff,omitempty"`

	// Executable is the binary with the hidden command; "" means the running one.
	Executable string `json:"-"`
	// Progress, if set, hears about a running download, a few times a second.
	Progress func(Progress) `json:"-"`
}

// Registry is what a host needs that others don't.
type Registry struct {
	// Host is "name" or "name:port", as in a package's repository.
	Host string `json:"host"`
	// PlainHTTP allows http to it. Loopback addresses may always be plain.
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// CAFile is a PEM file of authorities that are trusted for this host beside
	// the system's.
	CAFile string `json:"caFile,omitempty"`
}

// Platform is what a node runs.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	// Variant is "" where it doesn't matter.
	Variant string `json:"variant,omitempty"`
}

// String returns "os/arch" or "os/arch/variant".
func (p Platform) String() string {
	if p.Variant == "" {
		return p.OS + "/" + p.Architecture
	}
	return p.OS + "/" + p.Architecture + "/" + p.Variant
}

// Artifact is a package that is completely in the blob folder.
type Artifact struct {
	// Digest is the one that was asked for; Manifest is that of the platform's
	// manifest, another one where the first names an index.
	Digest, Manifest string
	// Layers are in the order in which they are unpacked.
	Layers   []Layer
	Metadata Metadata
	// Downloaded is how many bytes of layers came over the network for this call.
	Downloaded int64
}

// Layer is one tar archive.
type Layer struct {
	// MediaType is one of LayerMediaTypes.
	MediaType string
	// Path is the file in the blob folder.
	Path   string
	Digest string
	Size   int64
}

// Metadata is the package's config blob: written by who built it, covered by
// the digest, zero where the config is of another media type.
type Metadata struct {
	MetadataVersion int      `json:"metadataVersion"`
	Name            string   `json:"name"`
	Version         string   `json:"version"`
	OS              string   `json:"os"`
	Architecture    string   `json:"architecture"`
	Variant         string   `json:"variant"`
	EntryPoints     []string `json:"entryPoints"`
	Units           []string `json:"units"`
	// Entries and UnpackedSize are what unpacking makes, and are believed only
	// for checking the disk's space before.
	Entries      int   `json:"entries"`
	UnpackedSize int64 `json:"unpackedSize"`
}

// Progress of one download.
type Progress struct {
	// Package is the package's name.
	Package string `json:"package,omitempty"`
	// Done and Total are bytes of layers, those resumed included.
	Done  int64 `json:"done"`
	Total int64 `json:"total"`
	// Note says why an attempt is made again.
	Note string `json:"note,omitempty"`
}

// Fetcher fetches packages. It is safe for concurrent use.
type Fetcher struct {
	config Config
	blobs  blobs
}

// New returns a Fetcher. It touches nothing yet.
func New(c Config) (*Fetcher, error) {
	if !filepath.IsAbs(c.BlobDir) {
		return nil, &host.Error{Component: component, Element: c.BlobDir, Reason: v1.ReasonConfig,
			Err: fmt.Errorf("the blob folder %q is no absolute path", c.BlobDir)}
	}
	return &Fetcher{config: c.withDefaults(), blobs: blobs{dir: c.BlobDir}}, nil
}

func (c Config) withDefaults() Config {
	if c.MaxSize <= 0 {
		c.MaxSize = DefaultMaxSize
	}
	if c.StallTimeout <= 0 {
		c.StallTimeout = 30 * time.Second
	}
	if c.Attempts <= 0 {
		c.Attempts = 5
	}
	if c.Backoff <= 0 {
		c.Backoff = 500 * time.Millisecond
	}
	return c
}

// Fetch makes sure that all of the package for the platform is in the blob
// folder and returns where. What is there already is not fetched again, and
// if nothing is missing no registry is asked and no process started. Errors
// are *host.Error with element "package/<name>" and one of the reasons
// RegistryUnreachable, PackageNotFound, DigestMismatch, PackageInvalid,
// PlatformUnsupported, NoSpace, NotWritable, Internal. After a failure what
// arrived stays, to be resumed.
func (f *Fetcher) Fetch(ctx context.Context, pkg task.Package, platform Platform) (Artifact, error) {
	a, err := f.fetch(ctx, pkg, platform)
	if err != nil {
		e := *host.AsError(err)
		e.Component, e.Element = component, "package/"+pkg.Name
		return Artifact{}, &e
	}
	return a, nil
}

func (f *Fetcher) fetch(ctx context.Context, pkg task.Package, platform Platform) (Artifact, error) {
	if err := digest.Check(pkg.Digest); err != nil {
		return Artifact{}, invalid(err)
	}
	a, err := f.local(pkg.Digest, platform)
	var gone *missingError
	if !errors.As(err, &gone) {
		return a, err
	}
	if err := f.blobs.create(); err != nil {
		return Artifact{}, err
	}
	var got downloaded
	err = child.Run(ctx, child.Command{
		Executable: f.config.Executable,
		Name:       ChildCommand,
		Component:  component,
		Stdin:      request{Config: f.config, Name: pkg.Name, Repository: pkg.Repository, Digest: pkg.Digest, Platform: platform},
		Progress:   f.progress,
	}, &got)
	if err != nil {
		return Artifact{}, err
	}
	a, err = f.local(pkg.Digest, platform)
	a.Downloaded = got.Bytes
	return a, err
}

// local builds the artifact from what is in the blob folder.
func (f *Fetcher) local(dgst string, platform Platform) (Artifact, error) {
	return resolve(dgst, platform, f.config.MaxSize, f.blobs)
}

func (f *Fetcher) progress(line []byte) {
	if f.config.Progress == nil {
		return
	}
	var p Progress
	if json.Unmarshal(line, &p) == nil {
		f.config.Progress(p)
	}
}

// Discard removes the layers of a package, whole and partial, so that the
// next Fetch downloads them again: for a reader who found one damaged.
func (f *Fetcher) Discard(dgst string) error {
	used, err := f.references([]string{dgst})
	if err != nil {
		return err
	}
	var errs []error
	for hex, manifest := range used {
		if !manifest {
			errs = append(errs, f.blobs.remove(hex))
		}
	}
	return errors.Join(errs...)
}

// Collect removes every blob that no package of keep refers to, partial ones
// and what crashed writers left included. It returns how many bytes that freed.
// It must not run beside a Fetch.
func (f *Fetcher) Collect(keep []string) (freed int64, err error) {
	used, err := f.references(keep)
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir(f.blobs.folder())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot collect blobs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if _, ok := used[blobHex(e.Name())]; ok {
			continue
		}
		info, err := e.Info()
		if err == nil {
			err = os.Remove(f.blobs.file(e.Name()))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot collect blobs: %w", err))
			continue
		}
		freed += info.Size()
	}
	return freed, errors.Join(errs...)
}

// references returns the hex digests of everything that the packages consist
// of, as far as the folder knows; true marks manifests, indexes and configs.
func (f *Fetcher) references(digests []string) (map[string]bool, error) {
	used := map[string]bool{}
	for _, d := range digests {
		if err := digest.Check(d); err != nil {
			return nil, err
		}
		if err := f.reference(d, used, 0); err != nil {
			return nil, err
		}
	}
	return used, nil
}

func (f *Fetcher) reference(d string, used map[string]bool, depth int) error {
	used[digest.Hex(d)] = true
	data, err := f.blobs.read(manifestKind, d)
	var gone *missingError
	if errors.As(err, &gone) {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := parse(data)
	if err != nil {
		return nil // nothing that Fetch would use
	}
	for _, child := range m.manifests {
		if depth == 0 {
			if err := f.reference(child.Digest.String(), used, depth+1); err != nil {
				return err
			}
		}
	}
	if m.config != nil {
		used[m.config.Digest.Hex] = true
	}
	for _, l := range m.layers {
		used[l.Digest.Hex] = false
	}
	return nil
}

const component = "fetch"

func invalid(err error) *host.Error {
	return &host.Error{Component: component, Reason: v1.ReasonPackageInvalid, Err: err}
}
