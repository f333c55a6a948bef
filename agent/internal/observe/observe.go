// Package observe looks at the host: files, units, packages, and nothing but
// what the desired state or the inventory mentions.
//
// An Observer takes resources and the inventory and returns host.Observed, plain
// values for the planner. It changes nothing. A Watcher says when a look is due,
// because a watched path changed; what changed is always found by looking.
package observe

import (
	"context"
	"maps"
	"path/filepath"
	"slices"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
)

// Units tells the states of units, without UnitState.File.
type Units interface {
	Units(ctx context.Context, names []string) (map[string]host.UnitState, error)
}

// Packages tells which versions of a package are on the node.
type Packages interface {
	State(name string) (host.PackageState, error)
}

// Observer looks at one host.
type Observer struct {
	Units    Units
	Packages Packages
	// UnitDir is the folder that the agent writes unit files to.
	UnitDir string
}

// Observe looks at everything that resources or inv mention. What is wrong with
// a single path is in its FileState; an error means that nothing is known, and is
// that of Units or Packages.
func (o Observer) Observe(ctx context.Context, resources []task.Resource, inv host.Inventory) (host.Observed, error) {
	names := mentioned(resources, inv)
	units, err := o.Units.Units(ctx, slices.Sorted(maps.Keys(names.units)))
	if err != nil {
		return host.Observed{}, err
	}
	observed := host.Observed{
		Packages: make(map[string]host.PackageState, len(names.packages)),
		Files:    make(map[string]host.FileState, len(names.files)),
		Units:    make(map[string]host.UnitState, len(names.units)),
	}
	for name := range names.packages {
		state, err := o.Packages.State(name)
		if err != nil {
			return host.Observed{}, err
		}
		observed.Packages[name] = state
	}
	look := newLook()
	for path := range names.files {
		observed.Files[path] = look.file(path)
	}
	for name := range names.units {
		unit := units[name]
		unit.File = look.file(filepath.Join(o.UnitDir, name))
		observed.Units[name] = unit
	}
	return observed, nil
}

// mention is the set of things to look at.
type mention struct{ packages, files, units map[string]bool }

func mentioned(resources []task.Resource, inv host.Inventory) mention {
	m := mention{packages: map[string]bool{}, files: map[string]bool{}, units: map[string]bool{}}
	for _, r := range resources {
		switch r := r.(type) {
		case task.Package:
			m.packages[r.Name] = true
		case task.File:
			m.files[r.Path] = true
		case task.Unit:
			m.units[r.Name] = true
		case task.Service:
			m.units[r.Unit] = true
		}
	}
	for name := range inv.Packages {
		m.packages[name] = true
	}
	for path := range inv.Files {
		m.files[path] = true
	}
	for name := range inv.Units {
		m.units[name] = true
	}
	for name := range inv.Services {
		m.units[name] = true
	}
	return m
}
