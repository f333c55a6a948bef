// Package guard holds what a node permits, whoever signed. It is pure: it takes
// the node's own rules and a manifest's resources and returns what is refused.
//
// The node's root writes the rules (guard.yaml); Default has those that hold
// where it says nothing. Check judges files, packages, services and, line by
// line as systemd would read them, unit files. The list of unit directives is
// closed: what isn't known to be harmless or can't be judged is refused.
//
// The guard bounds damage when signing keys are stolen or a release goes wrong.
// It doesn't judge what a permitted program does: a package is trusted by its
// digest, and runs as the user that its unit names.
package guard

import (
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Kind is the kind of guard.yaml.
const Kind = "Guard"

// Guard is guard.yaml: what this node permits. A list that is left out has its
// default; one that is given replaces the default, except where it says that
// it adds. All paths are absolute and compared as written: the lists should
// hold no path that leads through a symlink.
type Guard struct {
	v1.TypeMeta `yaml:",inline"`
	// InstallRoots are the folders below which packages lie, as
	// <root>/<name>/current. Default: the agent's package root.
	InstallRoots []string `yaml:"installRoots,omitempty" json:"installRoots,omitempty"`
	// FileRoots are the folders below which tasks may write files, and from
	// which units may read environment files and credentials.
	FileRoots []string `yaml:"fileRoots,omitempty" json:"fileRoots,omitempty"`
	// UnitNames are patterns (* ? [a-z]) of the units that tasks may install and
	// control. Default: gpuaas-*.
	UnitNames []string `yaml:"unitNames,omitempty" json:"unitNames,omitempty"`
	// Dependencies are patterns of further units that units may pull in or be
	// pulled in by (Wants=, Requires=, WantedBy= ...). Default: targets of a usual boot.
	Dependencies []string `yaml:"dependencies,omitempty" json:"dependencies,omitempty"`
	// Registries are the OCI registries that packages may come from: "host",
	// "host:port", or "host/prefix" for the repositories below it. Empty means any.
	Registries []string `yaml:"registries,omitempty" json:"registries,omitempty"`
	// Users are those that units may run as. Empty means any; otherwise every
	// service and socket must name one of them, and "root" has to be listed
	// for one that may name none. DynamicUser=yes is always fine.
	Users []string `yaml:"users,omitempty" json:"users,omitempty"`
	// Groups are those that units may name in Group= and SupplementaryGroups=.
	// Empty means any but those that are as good as root.
	Groups []string `yaml:"groups,omitempty" json:"groups,omitempty"`
	// Binaries are executables outside packages that units may run, as absolute
	// paths. Shells and programs that start others are refused even when listed.
	Binaries []string `yaml:"binaries,omitempty" json:"binaries,omitempty"`
	// ForbiddenDirectives adds to the unit directives that are refused.
	ForbiddenDirectives []string `yaml:"forbiddenDirectives,omitempty" json:"forbiddenDirectives,omitempty"`
	// AllowedDirectives are permitted with any value, though the agent would
	// refuse or doesn't know them. Command lines and User= are judged all the same.
	AllowedDirectives []string `yaml:"allowedDirectives,omitempty" json:"allowedDirectives,omitempty"`
	// ProtectedPaths adds to the paths that no task may touch, themselves and
	// all below.
	ProtectedPaths []string `yaml:"protectedPaths,omitempty" json:"protectedPaths,omitempty"`
	// ProtectedUnits adds to the patterns of units that no task may touch.
	ProtectedUnits []string `yaml:"protectedUnits,omitempty" json:"protectedUnits,omitempty"`

	// UserScope is true where a user's own systemd manager is spoken to. It is
	// the agent's mode, not something to write into guard.yaml.
	UserScope bool `yaml:"-" json:"-"`
}

// Paths are the folders that the defaults depend on.
type Paths struct {
	PackageRoot string
	FileRoots   []string
	// UnitDir is where the agent writes unit files.
	UnitDir string
	// AgentDirs are the agent's own: configuration, state, run.
	AgentDirs []string
	// UserScope is true for an agent in a user's own systemd manager.
	UserScope bool
}

// Default returns what holds where guard.yaml says nothing.
func Default(p Paths) Guard {
	g := Guard{
		TypeMeta:       v1.TypeMeta{APIVersion: v1.APIVersion, Kind: Kind},
		InstallRoots:   []string{p.PackageRoot},
		FileRoots:      slices.Clone(p.FileRoots),
		UnitNames:      []string{"gpuaas-*"},
		Dependencies:   slices.Clone(usualDependencies),
		ProtectedPaths: append(slices.Clone(systemPaths), p.AgentDirs...),
		ProtectedUnits: slices.Clone(systemUnits),
		UserScope:      p.UserScope,
	}
	if p.UnitDir != "" {
		g.ProtectedPaths = append(g.ProtectedPaths, p.UnitDir)
		// Drop-ins for everything, and the folders that systemd prefers to ours.
		if parent := path.Dir(p.UnitDir); path.Base(parent) == "systemd" {
			g.ProtectedPaths = append(g.ProtectedPaths, parent)
		}
	}
	if p.PackageRoot != "" {
		g.ProtectedPaths = append(g.ProtectedPaths, p.PackageRoot)
	}
	return g
}

// Decode reads guard.yaml strictly; defaults has what it leaves out. The error is
// strict.Errors.
func Decode(file string, data []byte, defaults Guard) (Guard, error) {
	var g Guard
	if err := strict.Decode(file, data, &g); err != nil {
		return Guard{}, err
	}
	g.UserScope = defaults.UserScope
	for _, l := range []struct{ mine, defaults *[]string }{
		{&g.InstallRoots, &defaults.InstallRoots},
		{&g.FileRoots, &defaults.FileRoots},
		{&g.UnitNames, &defaults.UnitNames},
		{&g.Dependencies, &defaults.Dependencies},
		{&g.Registries, &defaults.Registries},
		{&g.Users, &defaults.Users},
		{&g.Groups, &defaults.Groups},
		{&g.Binaries, &defaults.Binaries},
	} {
		if *l.mine == nil {
			*l.mine = slices.Clone(*l.defaults)
		}
	}
	g.ForbiddenDirectives = slices.Concat(defaults.ForbiddenDirectives, g.ForbiddenDirectives)
	g.AllowedDirectives = slices.Concat(defaults.AllowedDirectives, g.AllowedDirectives)
	g.ProtectedPaths = slices.Concat(defaults.ProtectedPaths, g.ProtectedPaths)
	g.ProtectedUnits = slices.Concat(defaults.ProtectedUnits, g.ProtectedUnits)
	return g, nil
}

// Validate implements strict's hook.
func (g Guard) Validate(c *strict.Context) {
	if g.APIVersion != v1.APIVersion {
		c.Errorf("apiVersion", "found %q, allowed is %s", g.APIVersion, v1.APIVersion)
	}
	if g.Kind != Kind {
		c.Errorf("kind", "found %q, allowed is %s", g.Kind, Kind)
	}
	each := func(field string, values []string, bad func(string) bool, allowed string) {
		for i, v := range values {
			if bad(v) {
				c.Errorf(strict.Index(field, i), "found %q, allowed is %s", v, allowed)
			}
		}
	}
	notAbsolute := func(s string) bool { return !path.IsAbs(s) || path.Clean(s) != s || s == "/" }
	each("installRoots", g.InstallRoots, notAbsolute, "an absolute, clean path other than /")
	each("fileRoots", g.FileRoots, notAbsolute, "an absolute, clean path other than /")
	each("binaries", g.Binaries, notAbsolute, "an absolute, clean path")
	each("protectedPaths", g.ProtectedPaths, notAbsolute, "an absolute, clean path other than /")
	notPattern := func(s string) bool {
		_, err := path.Match(s, "")
		return s == "" || err != nil || strings.Contains(s, "/")
	}
	each("unitNames", g.UnitNames, notPattern, "a pattern of unit names like gpuaas-*")
	each("dependencies", g.Dependencies, notPattern, "a pattern of unit names like network-online.target")
	each("protectedUnits", g.ProtectedUnits, notPattern, "a pattern of unit names like sshd.service")
	notWord := func(s string) bool { return s == "" || strings.ContainsAny(s, " \t=%/\\\"'") }
	each("users", g.Users, notWord, "a user's name or number")
	each("groups", g.Groups, notWord, "a group's name or number")
	each("forbiddenDirectives", g.ForbiddenDirectives, notWord, "the name of a unit directive like BindPaths")
	each("allowedDirectives", g.AllowedDirectives, notWord, "the name of a unit directive like Delegate")
	each("registries", g.Registries, func(s string) bool {
		return s == "" || strings.ContainsAny(s, " @") || strings.Contains(s, "://") || path.Clean(s) != s || path.IsAbs(s)
	}, "host, host:port or host/prefix, without https://")
}
