package config

import (
	"fmt"
	"path/filepath"
)

// Scope says whose services the agent runs.
type Scope string

// The scopes.
const (
	System Scope = "system" // root's, over systemd's system manager
	User   Scope = "user"   // one user's, over that user's manager
)

// Paths are the folders that the agent uses. All are absolute.
type Paths struct {
	// Config holds config.yaml, guard.yaml and trust/root.json.
	Config string `yaml:"-"`
	// State survives a reboot: journal, inventory, trust, clone, blobs, staging.
	State string `yaml:"state,omitempty"`
	// Run does not: status.json.
	Run string `yaml:"run,omitempty"`
	// Packages is the root that packages are installed below.
	Packages string `yaml:"packages,omitempty"`
	// Units is where unit files are written.
	Units string `yaml:"units,omitempty"`
	// Files are the roots below which env and config files may be written.
	Files []string `yaml:"files,omitempty"`
}

// BootstrapRoot is the TUF root that first trust comes from.
func (p Paths) BootstrapRoot() string { return filepath.Join(p.Config, "trust", "root.json") }

// Repo is the bare clone of the signed branch.
func (p Paths) Repo() string { return filepath.Join(p.State, "repo.git") }

// Blobs is the content store of downloads.
func (p Paths) Blobs() string { return filepath.Join(p.State, "blobs") }

// Audit is the audit log's folder.
func (p Paths) Audit() string { return filepath.Join(p.State, "audit") }

// Status is the status document.
func (p Paths) Status() string { return filepath.Join(p.Run, "status.json") }

func (p Paths) all() []string {
	return append([]string{p.Config, p.State, p.Run, p.Packages, p.Units}, p.Files...)
}

type dirs struct{ Config, State, Run, Packages, Units, Files string }

// dirs are the defaults of a scope: design.md's for system, those of the XDG
// Base Directory Specification for user.
func (s Scope) dirs(env func(string) string) (dirs, error) {
	if s == System {
		return dirs{
			Config: "/etc/gpuaas/node-agent", State: "/var/lib/gpuaas/node-agent",
			Run: "/run/gpuaas/node-agent", Packages: "/opt/gpuaas/packages",
			Units: "/etc/systemd/system", Files: "/etc/gpuaas",
		}, nil
	}
	home, run := env("HOME"), env("XDG_RUNTIME_DIR")
	if home == "" {
		return dirs{}, fmt.Errorf("HOME is not set: --user keeps its files below it")
	}
	if run == "" {
		return dirs{}, fmt.Errorf("XDG_RUNTIME_DIR is not set: --user needs a login session with a systemd user manager (try `loginctl enable-linger`)")
	}
	xdg := func(name, def string) string {
		if v := env(name); filepath.IsAbs(v) {
			return v
		}
		return filepath.Join(home, def)
	}
	etc := xdg("XDG_CONFIG_HOME", ".config")
	return dirs{
		Config:   filepath.Join(etc, "gpuaas/node-agent"),
		State:    filepath.Join(xdg("XDG_STATE_HOME", ".local/state"), "gpuaas/node-agent"),
		Run:      filepath.Join(run, "gpuaas/node-agent"),
		Packages: filepath.Join(xdg("XDG_DATA_HOME", ".local/share"), "gpuaas/packages"),
		Units:    filepath.Join(etc, "systemd/user"),
		Files:    filepath.Join(etc, "gpuaas"),
	}, nil
}
