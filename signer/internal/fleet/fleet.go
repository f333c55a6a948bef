package fleet

import (
	"cmp"
	"errors"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Names in a fleet repo.
const (
	File           = "fleet.yaml"
	PackagesFolder = "packages"
	ProfilesFolder = "profiles"
	NodesFolder    = "nodes"
)

// MaxNodes is the most nodes that one fleet repo may describe.
const MaxNodes = 200_000

// Fleet is what a fleet repo says. Its lists are sorted by name or id.
type Fleet struct {
	v1.Fleet // with defaults filled in
	Packages []Package
	Profiles []Profile
	Nodes    []Node
}

// Package is one file of packages/.
type Package struct {
	File string
	v1.PackagePin
}

// Profile is one file of profiles/.
type Profile struct {
	File string
	v1.Profile
}

// Node is one file below nodes/.
type Node struct {
	File string
	v1.Node
}

// Package returns the package of that name.
func (f *Fleet) Package(name string) (Package, bool) {
	i, ok := slices.BinarySearchFunc(f.Packages, name, func(p Package, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return Package{}, false
	}
	return f.Packages[i], true
}

// Node returns the node with that id.
func (f *Fleet) Node(id string) (Node, bool) {
	i, ok := slices.BinarySearchFunc(f.Nodes, id, func(n Node, id string) int { return cmp.Compare(n.ID, id) })
	if !ok {
		return Node{}, false
	}
	return f.Nodes[i], true
}

// HasRegistry reports whether the fleet allows packages from that host.
func (f *Fleet) HasRegistry(host string) bool {
	return slices.ContainsFunc(f.Registries, func(r v1.Registry) bool { return r.Host == host })
}

// Locate turns problems, whose fields are paths below root, into errors at
// those fields' positions in the file.
func Locate(file string, root *yaml.Node, problems ...v1.Problem) strict.Errors {
	var errs strict.Errors
	errors.As(strict.DecodeNode(file, root, &located{problems}), &errs)
	return errs
}

// located makes strict find the positions.
type located struct{ problems []v1.Problem }

// DecodeNode implements strict's hook.
func (l *located) DecodeNode(c *strict.Context, _ *yaml.Node) {
	for _, p := range l.problems {
		c.Errorf(p.Field, "%s", p.Message)
	}
}
