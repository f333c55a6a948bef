// Package task is the closed set of things that a manifest can ask of a node.
// Each kind of task is one file; Kinds is the table of all of them. A task
// becomes Resources, which is all that the agent's planner sees.
//
// A new kind is a new file with a Spec, and a line in Kinds. Nothing that can
// run an arbitrary command may become one: see docs/threat-model.md.
package task

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
)

// Spec is the typed "with" of one kind of task: a pointer to the kind's struct.
// The set is closed: Kinds lists it.
type Spec interface {
	// Type is the kind's name, "runtime.write_env_file".
	Type() string
	// Resources says what the task with that id makes a node have. Names in
	// Service.RestartOn are still task ids or "package/<name>" here; NodeManifest.Resources
	// resolves them. The Spec must be valid; what strict decoding gave is.
	Resources(id string) []Resource
}

// Kind is one member of the closed set.
type Kind struct {
	// Type is the name in a task's "type".
	Type string
	// New returns a pointer to an empty Spec, to decode into.
	New func() Spec
	// Doc is one line for people.
	Doc string
}

// Kinds returns all kinds, sorted by Type.
func Kinds() []Kind {
	return []Kind{
		{"artifact.fetch", func() Spec { return new(ArtifactFetch) }, "pulls and unpacks a package without activating it"},
		{"runtime.install_service_unit", func() Spec { return new(InstallServiceUnit) }, "writes a systemd unit file"},
		{"runtime.service_control", func() Spec { return new(ServiceControl) }, "holds a unit in a state, or restarts or reloads it once"},
		{"runtime.write_config_file", func() Spec { return new(WriteConfigFile) }, "writes a file with exactly this content"},
		{"runtime.write_env_file", func() Spec { return new(WriteEnvFile) }, "writes an environment file for systemd's EnvironmentFile="},
	}
}

// New returns an empty Spec of the kind with that type, or false.
func New(kind string) (Spec, bool) {
	for _, k := range Kinds() {
		if k.Type == kind {
			return k.New(), true
		}
	}
	return nil, false
}

// Types returns the names of all kinds, sorted.
func Types() []string {
	var types []string
	for _, k := range Kinds() {
		types = append(types, k.Type)
	}
	slices.Sort(types)
	return types
}

// UnknownType says that a kind isn't in the set.
func UnknownType(kind string) error {
	return fmt.Errorf("unknown kind of task %q; allowed are %s", kind, strings.Join(Types(), ", "))
}

// check reports an error of the names package at a field.
func check(c *strict.Context, field string, err error) {
	if err != nil {
		c.Errorf(field, "%v", err)
	}
}
