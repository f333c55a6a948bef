package cli

import (
	"log/slog"
	"maps"
	"path/filepath"
	"slices"

	"github.com/gpuaas/node-agent/agent/internal/config"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/internal/durable"
)

// tidy removes the half-written files that a killed agent left wherever it
// writes: ownership is recorded before a file is made, so the inventory knows all
// those places. What can't be removed harms nothing and is only logged.
func tidy(cfg config.Config, inv host.Inventory, log *slog.Logger) {
	folders := map[string]bool{cfg.Paths.Run: true, cfg.Paths.Repo(): true, cfg.Paths.Units: true}
	for path := range inv.Files {
		folders[filepath.Dir(path)] = true
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		if err := durable.RemoveTemp(folder); err != nil {
			log.Warn("cannot remove what a killed agent left", "folder", folder, "error", err)
		}
	}
}
