package render

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
)

// template is a task of a profile or node, ready to be rendered many times.
type template struct {
	file string
	// field is the path of the task's "with" in its file, "tasks[2].with".
	field string
	task  v1.TaskTemplate
	// uses are the scalars with placeholders; names are what they name, sorted.
	uses  []use
	names []string
	// bad is what is wrong with placeholders whatever the node.
	bad strict.Errors

	// rendered are those that nodes share, by the values that went in.
	rendered map[string]*rendered
}

// use is one scalar with placeholders.
type use struct {
	node *yaml.Node
	path string
	// indent is the column of the key, or of the list, that holds the scalar.
	indent int
	names  []string
}

// position returns where in the file the text is that begins at an offset of
// the scalar. In a literal block the column is that of the usual indentation, two
// spaces more than the key's, since the tree doesn't tell the real one.
func (u use) position(offset int) (line, column int) {
	if u.node.Style&yaml.LiteralStyle == 0 || offset < 0 {
		return u.node.Line, u.node.Column
	}
	before := u.node.Value[:offset]
	inLine := before[strings.LastIndexByte(before, '\n')+1:]
	return u.node.Line + 1 + strings.Count(before, "\n"), u.indent + 2 + len([]rune(inLine))
}

// rendered is a template for certain values.
type rendered struct {
	// id tells renderings apart in the keys of caches.
	id int
	// shared is false where the node's id went in, so that no other node can use it.
	shared bool
	spec   task.Spec
	with   *yaml.Node
	errs   strict.Errors
}

func newTemplate(file string, index int, t v1.TaskTemplate) *template {
	tm := &template{
		file: file, field: strict.Index("tasks", index) + ".with", task: t,
		rendered: map[string]*rendered{},
	}
	names := map[string]bool{}
	tm.collect(t.With, tm.field, 1, names)
	tm.names = sortedKeys(names)
	return tm
}

// collect finds the scalars with placeholders.
func (t *template) collect(n *yaml.Node, path string, indent int, names map[string]bool) {
	switch {
	case n == nil:
	case v1.HasPlaceholder(n):
		t.scalar(use{node: n, path: path, indent: indent}, names)
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			t.collect(n.Content[i+1], strict.Key(path, n.Content[i].Value), n.Content[i].Column, names)
		}
	case n.Kind == yaml.SequenceNode:
		for i, c := range n.Content {
			t.collect(c, strict.Index(path, i), n.Column, names)
		}
	}
}

func (t *template) scalar(u use, names map[string]bool) {
	segments, err := split(u.node.Value)
	if err != nil {
		t.bad = append(t.bad, t.errorAt(u, "", err))
		return
	}
	for _, s := range segments {
		if !s.placeholder || slices.Contains(u.names, s.text) {
			continue
		}
		if err := checkName(s.text); err != nil {
			t.bad = append(t.bad, t.errorAt(u, s.text, err))
			continue
		}
		u.names = append(u.names, s.text)
		names[s.text] = true
	}
	t.uses = append(t.uses, u)
}

// errorAt makes an error about the placeholder of that name, or the whole scalar.
func (t *template) errorAt(u use, name string, err error) *strict.Error {
	offset := -1
	if name != "" {
		offset = strings.Index(u.node.Value, "${"+name+"}")
	}
	line, column := u.position(offset)
	return &strict.Error{File: t.file, Line: line, Column: column, Field: u.path, Message: err.Error()}
}

// resolve looks the template's names up, and returns a key that is the same
// for the same values.
func (t *template) resolve(s *scope) (found map[string]v1.Value, key string, errs strict.Errors) {
	if len(t.names) == 0 {
		return nil, "", nil
	}
	found = make(map[string]v1.Value, len(t.names))
	var b strings.Builder
	for _, name := range t.names {
		v, err := s.lookup(name)
		if err != nil {
			for _, u := range t.uses {
				if slices.Contains(u.names, name) {
					errs = append(errs, t.errorAt(u, name, err))
				}
			}
			continue
		}
		found[name] = v
		b.WriteString(v.Tag)
		b.WriteString(strconv.Itoa(len(v.Text)))
		b.WriteByte(':')
		b.WriteString(v.Text)
	}
	return found, b.String(), errs
}

// decode renders the template for certain values.
func (t *template) decode(f *fleet.Fleet, id int, found map[string]v1.Value) *rendered {
	_, hasID := found[nodeID]
	r := &rendered{id: id, shared: !hasID, with: interpolate(t.task.With, found)}
	spec, ok := task.New(t.task.Type)
	if !ok {
		// Loading refused it.
		r.errs = strict.Errors{{File: t.file, Line: r.with.Line, Column: r.with.Column, Field: t.field, Message: fmt.Sprintf("unknown type %q", t.task.Type)}}
		return r
	}
	if err := strict.DecodeNode(t.file, r.with, spec); err != nil {
		r.errs = t.inTask(err)
		return r
	}
	r.spec = spec
	for _, res := range spec.Resources(t.task.ID) {
		p, isPackage := res.(task.Package)
		if host, _, _ := strings.Cut(p.Repository, "/"); isPackage && !f.HasRegistry(host) {
			r.errs = t.locate(r, v1.Problem{Field: "ref", Message: fmt.Sprintf("registry %q is not one that %s lists", host, fleet.File)})
		}
	}
	return r
}

// locate turns problems with the fields of a rendered "with" into errors.
func (t *template) locate(r *rendered, problems ...v1.Problem) strict.Errors {
	return t.inTask(fleet.Locate(t.file, r.with, problems...))
}

// inTask makes errors whose fields are those of "with" into errors of the file.
func (t *template) inTask(err error) strict.Errors {
	var errs strict.Errors
	errors.As(err, &errs)
	out := make(strict.Errors, len(errs))
	for i, e := range errs {
		moved := *e
		switch {
		case e.Field == "":
			moved.Field = t.field
		case strings.HasPrefix(e.Field, "["):
			moved.Field = t.field + e.Field
		default:
			moved.Field = t.field + "." + e.Field
		}
		out[i] = &moved
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
