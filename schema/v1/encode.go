package v1

import (
	"fmt"

	"github.com/gpuaas/node-agent/schema/strict"
)

// Encode returns the manifest's canonical bytes: equal manifests have equal
// bytes, and DecodeManifest gives the manifest back. Values are not validated
// beyond what Resources checks; what can't be decoded again, such as text that
// is not UTF-8 or more than strict.MaxSize bytes, is an error.
func (m NodeManifest) Encode() ([]byte, error) {
	if m.TypeMeta != Meta(KindNodeManifest) {
		return nil, fmt.Errorf("cannot encode the manifest of %q: it is a %s of %s, not a %s of %s",
			m.Node, m.Kind, m.APIVersion, KindNodeManifest, APIVersion)
	}
	if _, err := m.Resources(); err != nil {
		return nil, fmt.Errorf("cannot encode the manifest of %q: %w", m.Node, err)
	}
	data, err := strict.Encode(m)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the manifest of %q: %w", m.Node, err)
	}
	return data, nil
}
