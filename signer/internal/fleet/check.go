package fleet

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// check reports what no single file shows. The fleet's lists are sorted.
func (l *loader) check(f *Fleet) {
	fleetKnown := !l.failed["fleet"]
	for _, p := range f.Packages {
		host, _, _ := strings.Cut(p.Ref, "/")
		if fleetKnown && !f.HasRegistry(host) {
			l.at(p.File, v1.Problem{Field: "ref", Message: fmt.Sprintf(
				"registry %q is not one of the fleet's; %s lists %s", host, File, list(registryHosts(f)))})
		}
	}
	names := make([]string, len(f.Packages))
	for i, p := range f.Packages {
		names[i] = p.Name
	}
	for _, p := range f.Profiles {
		l.at(p.File, l.unknownPackages(p.Packages, names)...)
	}
	teams := make([]string, len(f.Teams))
	for i, t := range f.Teams {
		teams[i] = t.Name
	}
	for i, n := range f.Nodes {
		problems := l.unknownPackages(n.Packages, names)
		if fleetKnown && !slices.Contains(teams, n.TeamOf()) {
			problems = append(problems, v1.Problem{Field: "team", Message: fmt.Sprintf(
				"no team %q; %s lists %s", n.TeamOf(), File, list(teams))})
		}
		if i > 0 && f.Nodes[i-1].ID == n.ID {
			problems = append(problems, v1.Problem{Field: "id", Message: fmt.Sprintf(
				"node %q is declared by %s already", n.ID, f.Nodes[i-1].File)})
		}
		l.at(n.File, problems...)
	}
}

func (l *loader) unknownPackages(used, known []string) []v1.Problem {
	var problems []v1.Problem
	for i, name := range used {
		if slices.Contains(known, name) || l.failed[path.Join(PackagesFolder, name)] {
			continue
		}
		problems = append(problems, v1.Problem{Field: strict.Index("packages", i), Message: fmt.Sprintf(
			"no package %q; %s/ has %s", name, PackagesFolder, list(known))})
	}
	return problems
}

func registryHosts(f *Fleet) []string {
	hosts := make([]string, len(f.Registries))
	for i, r := range f.Registries {
		hosts[i] = r.Host
	}
	return hosts
}

// list writes names for a message, not too many of them.
func list(names []string) string {
	const enough = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > enough:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:enough], ", "), len(names)-enough)
	}
	return strings.Join(names, ", ")
}
