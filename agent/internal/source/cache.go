package source

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gpuaas/node-agent/internal/durable"
	"github.com/gpuaas/node-agent/internal/gitpack"
)

// cacheName is the pack of what led to the wanted files at the last fetched
// commit, which is its first object.
const cacheName = "signed.pack"

// maxCache caps the pack. What doesn't fit is fetched anew each time.
const maxCache = 8 << 20

// loadCache returns the kept pack, nothing where there is none or it is too big
// to be one of ours. Whether it is whole is seen where it is used.
func (s *Source) loadCache() ([]byte, error) {
	if err := os.MkdirAll(s.config.RepoDir, 0o700); err != nil {
		return nil, fmt.Errorf("%w: %w", errWorkspace, err)
	}
	path := filepath.Join(s.config.RepoDir, cacheName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Size() > maxCache || !info.Mode().IsRegular()) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWorkspace, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errWorkspace, err)
	}
	return data, nil
}

// saveCache keeps a pack for the next fetch; an empty one stands for none.
func (s *Source) saveCache(pack []byte) error {
	path := filepath.Join(s.config.RepoDir, cacheName)
	if len(pack) == 0 {
		return durable.Remove(path)
	}
	err := durable.WriteFile(path, pack, durable.Options{Mode: 0o600})
	if err != nil {
		return fmt.Errorf("%w: %w", errWorkspace, err)
	}
	return nil
}

// decodeCache returns the objects of a kept pack and its commit. A pack that
// can't be read is no pack: everything is fetched again.
func decodeCache(data []byte, open gitpack.OpenFile, limits Limits) (objects map[gitpack.ID]gitpack.Object, commit gitpack.ID) {
	objects = map[gitpack.ID]gitpack.Object{}
	if len(data) == 0 {
		return objects, commit
	}
	pack, err := gitpack.Read(bytes.NewReader(data), open, limits.pack(), nil)
	if err != nil {
		return objects, commit
	}
	defer func() { _ = pack.Close() }()
	id, first, err := pack.First()
	if err != nil || first.Type != gitpack.Commit {
		return objects, commit
	}
	if err := pack.All(func(id gitpack.ID, o gitpack.Object) { objects[id] = o }); err != nil {
		return map[gitpack.ID]gitpack.Object{}, commit
	}
	return objects, id
}

// encodeCache packs what a walk used; nil where that is too much to keep.
func encodeCache(w *walk) ([]byte, error) {
	kept := make([]gitpack.Object, 0, len(w.used))
	for _, id := range w.used {
		kept = append(kept, w.objects[id])
	}
	pack, err := gitpack.Encode(kept)
	if len(pack) > maxCache {
		return nil, err
	}
	return pack, err
}
