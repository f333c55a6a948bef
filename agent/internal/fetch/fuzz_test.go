package fetch

import (
	"errors"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/host"
)

// FuzzMetadata holds any config blob to: metadata for this platform of a known version, or a typed refusal.
func FuzzMetadata(f *testing.F) {
	for _, seed := range []string{
		`{"metadataVersion":1,"os":"linux","architecture":"amd64"}`, `{"os":"linux","architecture":"arm64","variant":"v8"}`,
		`{"metadataVersion":99}`, `{"metadataVersion":-1}`, `{"os":5}`, `{}`, `null`, `[`, "",
	} {
		f.Add([]byte(seed))
	}
	p := Platform{OS: "linux", Architecture: "amd64"}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseMetadata(ConfigMediaType, data, p)
		var e *host.Error
		switch {
		case err != nil && !errors.As(err, &e):
			t.Errorf("an untyped error: %v", err)
		case err == nil && (m.MetadataVersion > metadataVersion || m.OS != "" && m.OS != p.OS):
			t.Errorf("accepted %+v", m)
		}
	})
}
