package trust

import (
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Files is one immutable state of the signed branch.
type Files interface {
	// ReadFile gives the bytes at a slash-separated path, "metadata/root.json",
	// and whether there is such a file. The bytes must not be changed.
	ReadFile(path string) ([]byte, bool)
}

// Limits on what is read, in bytes or entries. They bound what is parsed before
// it is verified; honest repositories stay far below them.
const (
	MaxRoot       = 256 << 10
	MaxTimestamp  = 16 << 10
	MaxSnapshot   = 8 << 20
	MaxTargets    = 1 << 20
	MaxRole       = 4 << 20
	MaxManifest   = 1 << 20
	MaxTeams      = 1024
	maxRoots      = 1024 // new roots in one refresh; the next one goes on
	maxDelegators = 8    // roles asked for one manifest
)

// read gives a file of at most limit bytes.
func read(files Files, role, path string, limit int) ([]byte, error) {
	data, ok := files.ReadFile(path)
	if !ok {
		return nil, fail(v1.ReasonMissing, role, "the signed branch has no %s", path)
	}
	if len(data) > limit {
		return nil, fail(v1.ReasonMalformed, role, "%s has %d bytes; at most %d are allowed", path, len(data), limit)
	}
	return data, nil
}

// mapFiles are Files held in memory.
type mapFiles map[string][]byte

func (m mapFiles) ReadFile(path string) ([]byte, bool) {
	data, ok := m[path]
	return data, ok
}
