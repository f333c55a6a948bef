package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
	"github.com/gpuaas/node-agent/signer/internal/render"
)

// rootFile is the bootstrap root of the nodes, in the fleet repo.
const rootFile = "trust/root.json"

// maxRootFile bounds it.
const maxRootFile = 1 << 20

// unpinned is the digest of a package that was never pushed.
var unpinned = "sha256:" + strings.Repeat("0", 64)

// repo is a fleet repo that was loaded and rendered.
type repo struct {
	dir       string
	fleet     *fleet.Fleet
	manifests map[string]v1.NodeManifest
}

// fleetDir is -C or the nearest folder above it that has a fleet.yaml.
func (o *options) fleetDir() (string, error) {
	start, err := filepath.Abs(o.dir)
	if err != nil {
		return "", fmt.Errorf("cannot find the fleet repo: %w", err)
	}
	if info, err := os.Stat(start); err != nil {
		return "", fmt.Errorf("cannot find the fleet repo: %w", err)
	} else if !info.IsDir() {
		return "", fmt.Errorf("cannot find the fleet repo: %s is not a folder", o.dir)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, fleet.File)); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return start, nil // loading says what is missing
		}
	}
}

// load loads and renders the fleet repo.
func (o *options) load() (*repo, error) {
	dir, err := o.fleetDir()
	if err != nil {
		return nil, err
	}
	f, err := fleet.Load(os.DirFS(dir))
	if err != nil {
		return nil, err
	}
	manifests, err := render.Render(f)
	if err != nil {
		return nil, err
	}
	return &repo{dir: dir, fleet: f, manifests: manifests}, nil
}

// bootstrapRoot reads trust/root.json of the fleet repo at dir.
func bootstrapRoot(dir string) ([]byte, error) {
	p := filepath.Join(dir, filepath.FromSlash(rootFile))
	data, err := readLimited(p, maxRootFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read what the nodes trust: %w (gpuaas-signer init makes it)", err)
	}
	return data, nil
}

// notPinned lists packages that nodes use and whose digest is the template's.
func (r *repo) notPinned() []fleet.Package {
	used := map[string]bool{}
	for _, m := range r.manifests {
		for _, p := range m.Packages {
			if p.Digest == unpinned {
				used[p.Name] = true
			}
		}
	}
	var out []fleet.Package
	for _, p := range r.fleet.Packages {
		if used[p.Name] {
			out = append(out, p)
		}
	}
	return out
}

// idle lists profiles that match no node.
func (r *repo) idle() []fleet.Profile {
	var out []fleet.Profile
	for _, p := range r.fleet.Profiles {
		used := false
		for _, n := range r.fleet.Nodes {
			if used = p.Selector.Matches(n.Labels); used {
				break
			}
		}
		if !used {
			out = append(out, p)
		}
	}
	return out
}

// eachNode calls do for every node with its place in the list, its target path
// and its manifest, on all processors.
func (r *repo) eachNode(do func(i int, target string, m v1.NodeManifest) error) error {
	nodes := r.fleet.Nodes
	errs := make([]error, len(nodes))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(nodes); i = int(next.Add(1)) - 1 {
				errs[i] = do(i, trust.TargetPath(nodes[i].TeamOf(), nodes[i].ID), r.manifests[nodes[i].ID])
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
