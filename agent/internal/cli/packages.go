package cli

import (
	"context"
	"errors"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/store"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maxPackageUnit caps a unit file that is read from a package.
const maxPackageUnit = 1 << 20

// packages joins the two halves of installing: fetch brings verified blobs,
// store unpacks them. Neither knows of the other.
type packages struct {
	fetch    *fetch.Fetcher
	store    *store.Store
	platform fetch.Platform
}

// Stage implements loop.Packages. A blob that rotted since its download is
// fetched once more.
func (p *packages) Stage(ctx context.Context, pkg task.Package) error {
	err := p.stage(ctx, pkg)
	var e *host.Error
	if errors.As(err, &e) && e.Component == "store" && e.Reason == v1.ReasonDigestMismatch {
		if err := p.fetch.Discard(pkg.Digest); err != nil {
			return err
		}
		return p.stage(ctx, pkg)
	}
	return err
}

func (p *packages) stage(ctx context.Context, pkg task.Package) error {
	state, err := p.store.State(pkg.Name)
	if err != nil || state.Versions[pkg.Digest] {
		return err // its blobs may be collected already
	}
	artifact, err := p.fetch.Fetch(ctx, pkg, p.platform)
	if err != nil {
		return err
	}
	s := store.Package{Name: pkg.Name, Digest: pkg.Digest, UnpackedSize: artifact.Metadata.UnpackedSize}
	for _, l := range artifact.Layers {
		s.Layers = append(s.Layers, store.Layer{MediaType: l.MediaType, Path: l.Path, Digest: l.Digest, Size: l.Size})
	}
	return p.store.Unpack(ctx, s)
}

// ReadFile implements loop.Packages.
func (p *packages) ReadFile(name, digest, file string) ([]byte, error) {
	return p.store.ReadFile(name, digest, file, maxPackageUnit)
}

// Collect implements loop.Packages. Blobs are only needed until they are
// unpacked: a version that is there is never fetched again.
func (p *packages) Collect(keep map[string][]string) error {
	_, storeErr := p.store.Collect(keep)
	_, fetchErr := p.fetch.Collect(nil)
	return errors.Join(storeErr, fetchErr)
}
