package task

import (
	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// InstallServiceUnit is runtime.install_service_unit: a unit file, either from a
// package of the same manifest or written here.
type InstallServiceUnit struct {
	// Unit is the unit's name: .service, .timer, .socket, .target or .path.
	Unit string `yaml:"unit" json:"unit"`
	// Adopt takes over a unit file that exists and that the agent doesn't own.
	Adopt bool `yaml:"adopt,omitempty" json:"adopt,omitempty"`
	// From is where a package holds the unit file. Either this or content.
	From *PackageFile `yaml:"from,omitempty" json:"from,omitempty"`
	// Content of the unit file. Either this or from.
	Content string `yaml:"content,omitempty" json:"content,omitempty"`
}

// PackageFile is a file of a package of the same manifest.
type PackageFile struct {
	// Package is its name.
	Package string `yaml:"package" json:"package"`
	// File is the path inside the package.
	File string `yaml:"file" json:"file"`
}

// Validate implements strict's hook.
func (p PackageFile) Validate(c *strict.Context) {
	check(c, "package", names.Label(p.Package))
	check(c, "file", names.RelativePath(p.File))
}

// Type implements Spec.
func (InstallServiceUnit) Type() string { return "runtime.install_service_unit" }

// Resources implements Spec.
func (i InstallServiceUnit) Resources(id string) []Resource {
	unit := Unit{Name: i.Unit, Adopt: i.Adopt, Source: id}
	if i.From != nil {
		unit.Package, unit.File = i.From.Package, i.From.File
	} else {
		unit.Content = []byte(i.Content)
	}
	return []Resource{unit}
}

// Validate implements strict's hook.
func (i InstallServiceUnit) Validate(c *strict.Context) {
	check(c, "unit", names.Unit(i.Unit))
	if (i.From == nil) == (c.Value("content") == nil) {
		c.Errorf("", "needs exactly one of from and content")
	}
	check(c, "content", checkContent(i.Content))
}
