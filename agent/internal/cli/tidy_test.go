package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/config"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
)

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	cfg := config.Config{Paths: config.Paths{State: at("state"), Run: at("run"), Units: at("units")}}
	inv := host.NewInventory()
	inv.Files[at("etc/a.env")] = host.OwnedFile{}
	inv.Files[at("none/a.env")] = host.OwnedFile{}
	inv.Files[at("etc/a.env/below-a-file")] = host.OwnedFile{}
	for _, folder := range []string{"state/repo.git", "run", "units", "etc", "other"} {
		if err := os.MkdirAll(at(folder), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{durable.TempPrefix + "1", "a.env"} {
			if err := os.WriteFile(filepath.Join(at(folder), name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	tidy(cfg, inv, slog.New(slog.DiscardHandler))
	for folder, want := range map[string]int{"state/repo.git": 1, "run": 1, "units": 1, "etc": 1, "other": 2} {
		if entries, err := os.ReadDir(at(folder)); err != nil || len(entries) != want {
			t.Errorf("%s: %v, %v", folder, entries, err)
		}
	}
}
