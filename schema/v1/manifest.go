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
	for _, p := range m.problems() {
		c.Errorf(p.field, "%s", p.message)
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
	if problems := m.problems(); len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = fmt.Errorf("%s: %s", p.field, p.message)
		}
		return nil, errors.Join(errs...)
	}
	var out []task.Resource
	for _, p := range m.Packages {
		out = append(out, task.Package{Name: p.Name, Repository: p.Ref, Digest: p.Digest, Activate: true})
	}
	refs := m.refs()
	for _, t := range m.Tasks {
		for _, r := range t.With.Resources(t.ID) {
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

// refs returns the Refs behind every name that restartOn may hold.
func (m NodeManifest) refs() map[string][]string {
	refs := map[string][]string{}
	for _, p := range m.Packages {
		refs[task.PackageRef(p.Name)] = []string{task.PackageRef(p.Name)}
	}
	for _, t := range m.Tasks {
		if t.With == nil {
			continue
		}
		for _, r := range t.With.Resources(t.ID) {
			switch r.(type) {
			case task.File, task.Unit:
				refs[t.ID] = append(refs[t.ID], r.Ref())
			}
		}
	}
	return refs
}

// problem is something wrong between the parts of a manifest.
type problem struct{ field, message string }

// problems finds what no single field shows: names that are taken, and names
// that nothing has.
func (m NodeManifest) problems() []problem {
	var out []problem
	add := func(field, format string, args ...any) {
		out = append(out, problem{field, fmt.Sprintf(format, args...)})
	}
	if len(m.Packages) > MaxPackages {
		add("packages", "found %d; at most %d are allowed", len(m.Packages), MaxPackages)
	}
	if len(m.Tasks) > MaxTasks {
		add("tasks", "found %d; at most %d are allowed", len(m.Tasks), MaxTasks)
	}
	owner := map[string]string{} // Ref -> field
	claim := func(r task.Resource, field string) {
		if first, ok := owner[r.Ref()]; ok {
			add(field, "%s is declared by %s already", r.Ref(), first)
			return
		}
		owner[r.Ref()] = field
	}
	for i, p := range m.Packages {
		claim(task.Package{Name: p.Name}, strict.Index("packages", i))
	}
	kinds := map[string]string{} // task id -> type
	for i, t := range m.Tasks {
		at := strict.Index("tasks", i)
		if _, ok := kinds[t.ID]; ok {
			add(at+".id", "%q is the id of an earlier task already", t.ID)
			continue
		}
		kinds[t.ID] = t.Type
		if t.With == nil {
			add(at+".with", "missing; this field is required")
			continue
		}
		if t.Type != t.With.Type() {
			add(at+".type", "is %q, but with is that of %s", t.Type, t.With.Type())
			continue
		}
		for _, r := range t.With.Resources(t.ID) {
			claim(r, at)
		}
	}
	refs := m.refs()
	for i, t := range m.Tasks {
		if t.With == nil {
			continue
		}
		for _, r := range t.With.Resources(t.ID) {
			switch r := r.(type) {
			case task.Unit:
				if r.Package != "" && refs[task.PackageRef(r.Package)] == nil {
					add(strict.Index("tasks", i)+".with.from.package", "no package %q in this manifest's packages", r.Package)
				}
			case task.Service:
				for j, name := range r.RestartOn {
					if refs[name] == nil {
						add(strict.Index(strict.Index("tasks", i)+".with.restartOn", j), "%s", unknownName(name, kinds))
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
