package render

import (
	"bytes"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Unstamped is a manifest without what publishing adds.
type Unstamped struct {
	v1.TypeMeta `yaml:",inline"`
	Node        string               `yaml:"node" json:"node"`
	Packages    []v1.ManifestPackage `yaml:"packages,omitempty" json:"packages,omitempty"`
	Tasks       []v1.Task            `yaml:"tasks,omitempty" json:"tasks,omitempty"`
}

// View returns the manifest without generation and source.
func View(m v1.NodeManifest) Unstamped { return Unstamped{m.TypeMeta, m.Node, m.Packages, m.Tasks} }

// Content returns the manifest's canonical bytes without generation and source:
// what a node is to have, and so what render and diff show.
func Content(m v1.NodeManifest) ([]byte, error) {
	return strict.Encode(View(m))
}

// Stamp returns the bytes to publish for a rendered manifest, and whether they
// are new. prev is what is published now, or nil. As long as the content is the
// same prev stays, byte for byte, with its generation and source; otherwise
// next gets these. generation must be higher than any published before, as the version
// of the snapshot being made is.
func Stamp(prev []byte, next v1.NodeManifest, source v1.ManifestSource, generation int64) (data []byte, changed bool, err error) {
	want, err := Content(next)
	if err != nil {
		return nil, false, err
	}
	if prev != nil && Same(prev, want) {
		return prev, false, nil
	}
	next.Generation, next.Source = generation, source
	data, err = next.Encode()
	return data, true, err
}

// Same reports whether published bytes have that content, as Content gives it.
func Same(published, content []byte) bool {
	return bytes.Equal(unstamped(published), content) || bytes.Equal(Unstamp(published), content)
}

// Unstamp returns the content of published bytes as Content gives it, also when
// another version encoded them. What can't be decoded comes back as it is.
func Unstamp(published []byte) []byte {
	if m, err := v1.DecodeManifest("", published); err == nil {
		if data, err := Content(m); err == nil {
			return data
		}
	}
	return published
}

// unstamped cuts generation and source out of canonical bytes, which is much
// faster than decoding them. What it returns for other bytes is of no use.
func unstamped(data []byte) []byte {
	start := bytes.Index(data, []byte("\ngeneration: "))
	if start < 0 {
		return nil
	}
	rest := data[start+1:]
	source := bytes.Index(rest, []byte("\nsource:\n"))
	if source < 0 {
		return nil
	}
	rest = rest[source+len("\nsource:\n"):]
	for bytes.HasPrefix(rest, []byte(" ")) {
		_, rest, _ = bytes.Cut(rest, []byte("\n"))
	}
	return append(bytes.Clone(data[:start+1]), rest...)
}
