package v1

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	"gopkg.in/yaml.v3"
)

// Limits of one manifest, beside strict.MaxSize.
const (
	MaxTasks    = 1000
	MaxPackages = 1000
)

// DecodeNode implements strict's hook: With is decoded by Type.
func (t *Task) DecodeNode(c *strict.Context, n *yaml.Node) {
	var shape struct {
		ID   string     `yaml:"id"`
		Type string     `yaml:"type"`
		With *yaml.Node `yaml:"with"`
	}
	c.Decode(n, &shape)
	t.ID, t.Type = shape.ID, shape.Type
	spec := checkTask(c, t.ID, t.Type)
	if spec == nil || shape.With == nil {
		return
	}
	c.Decode(shape.With, spec)
	t.With = spec
}

// Validate implements strict's hook.
func (m *NodeManifest) Validate(c *strict.Context) {
	check(c, "node", names.NodeID(m.Node))
	if m.Generation < 1 {
		c.Errorf("generation", "found %d; the first generation is 1", m.Generation)
	}
	for _, p := range m.Problems() {
		c.Errorf(p.Field, "%s", p.Message)
	}
}

// Validate implements strict's hook.
func (s ManifestSource) Validate(c *strict.Context) {
	check(c, "repo", names.RepositoryURL(s.Repo))
	check(c, "commit", names.Commit(s.Commit))
}

// Validate implements strict's hook.
func (p ManifestPackage) Validate(c *strict.Context) {
	check(c, "name", names.Label(p.Name))
	check(c, "ref", names.Repository(p.Ref))
	check(c, "digest", names.Digest(p.Digest))
}

// Resources returns what the manifest makes its node have: the packages and
// then the tasks' resources, in the order of the manifest. RestartOn holds Refs.
// The error names every field that refers to something that isn't there, or
// that is declared twice; a decoded manifest has none.
func (m NodeManifest) Resources() ([]task.Resource, error) {
	parts := m.parts()
	if problems := m.problems(parts); len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = fmt.Errorf("%s: %s", p.Field, p.Message)
		}
		return nil, errors.Join(errs...)
	}
	var out []task.Resource
	for _, p := range m.Packages {
		out = append(out, task.Package{Name: p.Name, Repository: p.Ref, Digest: p.Digest, Activate: true})
	}
	refs := m.refs(parts)
	for _, resources := range parts {
		for _, r := range resources {
			if s, ok := r.(task.Service); ok {
				var on []string
				for _, name := range s.RestartOn {
					on = append(on, refs[name]...)
				}
				slices.Sort(on)
				s.RestartOn = on
				r = s
			}
			out = append(out, r)
		}
	}
	return out, nil
}

// parts returns the resources of each task.
func (m NodeManifest) parts() [][]task.Resource {
	out := make([][]task.Resource, len(m.Tasks))
	for i, t := range m.Tasks {
		if t.With != nil {
			out[i] = t.With.Resources(t.ID)
		}
	}
	return out
}

// refs returns the Refs behind every name that restartOn may hold.
func (m NodeManifest) refs(parts [][]task.Resource) map[string][]string {
	refs := map[string][]string{}
	for _, p := range m.Packages {
		refs[task.PackageRef(p.Name)] = []string{task.PackageRef(p.Name)}
	}
	for i, t := range m.Tasks {
		for _, r := range parts[i] {
			switch r.(type) {
			case task.File, task.Unit:
				refs[t.ID] = append(refs[t.ID], r.Ref())
			}
		}
	}
	return refs
}

// Problem is something wrong between the parts of a manifest.
type Problem struct {
	// Field is the path of the field, "tasks[0].with.restartOn[1]".
	Field string
	// Message says what is wrong and what is allowed.
	Message string
}

// Problems are the errors of Resources one by one, for who rendered the
// manifest and knows where each task was written.
func (m NodeManifest) Problems() []Problem { return m.problems(m.parts()) }

// problems finds what no single field shows: names that are taken, and names
// that nothing has.
func (m NodeManifest) problems(parts [][]task.Resource) []Problem {
	var out []Problem
	if len(m.Packages) > MaxPackages {
		out = append(out, Problem{"packages", fmt.Sprintf("found %d; at most %d are allowed", len(m.Packages), MaxPackages)})
	}
	if len(m.Tasks) > MaxTasks {
		out = append(out, Problem{"tasks", fmt.Sprintf("found %d; at most %d are allowed", len(m.Tasks), MaxTasks)})
	}
	out = append(out, m.taken(parts)...)
	return append(out, m.unknown(parts)...)
}

// taken finds what is declared twice, and tasks that aren't whole.
func (m NodeManifest) taken(parts [][]task.Resource) []Problem {
	var out []Problem
	owner := map[string]string{} // Ref -> field
	claim := func(r task.Resource, field string) {
		if first, ok := owner[r.Ref()]; ok {
			out = append(out, Problem{field, fmt.Sprintf("%s is declared by %s already", r.Ref(), first)})
			return
		}
		owner[r.Ref()] = field
	}
	for i, p := range m.Packages {
		claim(task.Package{Name: p.Name}, strict.Index("packages", i))
	}
	ids := map[string]bool{}
	for i, t := range m.Tasks {
		at := strict.Index("tasks", i)
		switch {
		case ids[t.ID]:
			out = append(out, Problem{at + ".id", fmt.Sprintf("%q is the id of an earlier task already", t.ID)})
			continue
		case t.With == nil:
			out = append(out, Problem{at + ".with", "missing; this field is required"})
		case t.Type != t.With.Type():
			out = append(out, Problem{at + ".type", fmt.Sprintf("is %q, but with is that of %s", t.Type, t.With.Type())})
		}
		ids[t.ID] = true
		for _, r := range parts[i] {
			claim(r, at)
		}
	}
	return out
}

// unknown finds references to what isn't in the manifest.
func (m NodeManifest) unknown(parts [][]task.Resource) []Problem {
	var out []Problem
	refs := m.refs(parts)
	kinds := map[string]string{} // task id -> type
	for _, t := range m.Tasks {
		kinds[t.ID] = t.Type
	}
	for i, resources := range parts {
		with := strict.Index("tasks", i) + ".with"
		for _, r := range resources {
			switch r := r.(type) {
			case task.Unit:
				if r.Package != "" && refs[task.PackageRef(r.Package)] == nil {
					out = append(out, Problem{with + ".from.package", unknownName(task.PackageRef(r.Package), kinds)})
				}
			case task.Service:
				for j, name := range r.RestartOn {
					if refs[name] == nil {
						out = append(out, Problem{strict.Index(with+".restartOn", j), unknownName(name, kinds)})
					}
				}
			}
		}
	}
	return out
}

// unknownName says why restartOn can't hold a name.
func unknownName(name string, kinds map[string]string) string {
	if kind, ok := kinds[name]; ok {
		return fmt.Sprintf("task %q is a %s; allowed are tasks that write files or units, and package/<name>", name, kind)
	}
	if pkg, ok := strings.CutPrefix(name, "package/"); ok {
		return fmt.Sprintf("no package %q in this manifest's packages", pkg)
	}
	return fmt.Sprintf("no task %q in this manifest", name)
}
