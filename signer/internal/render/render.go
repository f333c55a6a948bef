package render

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/gpuaas/node-agent/schema/strict"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
)

// Render returns the manifest of every node, by id, without generation and
// source: Stamp adds them. Manifests share parts; nothing in them may be changed.
// The error, if any, is strict.Errors: all that is wrong, sorted by file and
// position, what many nodes share once.
func Render(f *fleet.Fleet) (map[string]v1.NodeManifest, error) {
	r := &renderer{fleet: f, bases: map[string]*base{}, checked: map[string]strict.Errors{}, errs: map[strict.Error]*seen{}}
	r.load()
	out := make(map[string]v1.NodeManifest, len(f.Nodes))
	for i := range f.Nodes {
		out[f.Nodes[i].ID] = r.node(&f.Nodes[i])
	}
	if err := r.errors(); err != nil {
		return nil, err
	}
	return out, nil
}

type renderer struct {
	fleet    *fleet.Fleet
	profiles [][]*template // of each profile
	// bases holds what nodes with the same profiles share, by those profiles.
	bases map[string]*base
	// checked holds what is wrong between the tasks of a manifest, by what is in it.
	checked map[string]strict.Errors
	nextID  int
	errs    map[strict.Error]*seen
}

// base is what a set of profiles makes.
type base struct {
	values    v1.Values
	packages  []string
	templates []*template
}

// seen is for which nodes an error was found.
type seen struct {
	node  string // "" when it doesn't depend on the node
	count int
}

// load prepares the templates of the profiles, those of no node too.
func (r *renderer) load() {
	for _, p := range r.fleet.Profiles {
		r.profiles = append(r.profiles, r.templates(p.File, p.Tasks))
	}
}

func (r *renderer) templates(file string, tasks []v1.TaskTemplate) []*template {
	var out []*template
	for i, t := range tasks {
		tm := newTemplate(file, i, t)
		r.report("", tm.bad)
		out = append(out, tm)
	}
	return out
}

func (r *renderer) id() int {
	r.nextID++
	return r.nextID
}

// node renders one node.
func (r *renderer) node(n *fleet.Node) v1.NodeManifest {
	b := r.base(n)
	if len(n.Values) > 0 || len(n.Packages) > 0 || len(n.Tasks) > 0 {
		own := b.clone()
		own.overlay(n.Values, n.Packages, r.templates(n.File, n.Tasks))
		b = own
	}
	m := v1.NodeManifest{TypeMeta: v1.Meta(v1.KindNodeManifest), Node: n.ID}
	for _, name := range b.packages {
		p, _ := r.fleet.Package(name)
		m.Packages = append(m.Packages, v1.ManifestPackage{Name: p.Name, Ref: p.Ref, Digest: p.Digest})
	}
	s := &scope{node: n.ID, values: b.values, packages: b.packages, installRoot: r.fleet.InstallRoot}
	parts := make([]*rendered, 0, len(b.templates))
	for _, t := range b.templates {
		if part := r.task(t, s); part != nil {
			parts = append(parts, part)
			m.Tasks = append(m.Tasks, v1.Task{ID: t.task.ID, Type: t.task.Type, With: part.spec})
		}
	}
	if len(parts) == len(b.templates) {
		r.check(&m, b, parts)
	}
	return m
}

// base returns what the node's profiles make.
func (r *renderer) base(n *fleet.Node) *base {
	var key strings.Builder
	var matching []int
	for i, p := range r.fleet.Profiles {
		if p.Selector.Matches(n.Labels) {
			matching = append(matching, i)
			key.WriteString(strconv.Itoa(i) + " ")
		}
	}
	if b, ok := r.bases[key.String()]; ok {
		return b
	}
	b := &base{values: maps.Clone(r.fleet.Values)}
	for _, i := range matching {
		b.overlay(r.fleet.Profiles[i].Values, r.fleet.Profiles[i].Packages, r.profiles[i])
	}
	r.bases[key.String()] = b
	return b
}

func (b *base) clone() *base {
	return &base{values: maps.Clone(b.values), packages: slices.Clone(b.packages), templates: slices.Clone(b.templates)}
}

// overlay adds something stronger.
func (b *base) overlay(values v1.Values, packages []string, templates []*template) {
	if b.values == nil {
		b.values = v1.Values{}
	}
	maps.Copy(b.values, values)
	b.packages = append(b.packages, packages...)
	slices.Sort(b.packages)
	b.packages = slices.Compact(b.packages)
	for _, t := range templates {
		i := slices.IndexFunc(b.templates, func(old *template) bool { return old.task.ID == t.task.ID })
		if i < 0 {
			b.templates = append(b.templates, t)
		} else {
			b.templates[i] = t
		}
	}
}

// task renders one task, or returns nil after reporting why it can't be.
func (r *renderer) task(t *template, s *scope) *rendered {
	values, key, errs := t.resolve(s)
	if len(t.bad) > 0 || len(errs) > 0 {
		r.report(s.node, errs)
		return nil
	}
	part, ok := t.rendered[key]
	if !ok {
		part = t.decode(r.fleet, r.id(), values)
		if part.shared {
			t.rendered[key] = part
		}
	}
	if len(part.errs) > 0 {
		r.report(s.node, part.errs)
		return nil
	}
	return part
}

// check reports what is wrong between the parts of a manifest.
func (r *renderer) check(m *v1.NodeManifest, b *base, parts []*rendered) {
	var key strings.Builder
	shared := true
	for _, p := range b.packages {
		key.WriteString(p + " ")
	}
	for _, p := range parts {
		key.WriteString(strconv.Itoa(p.id) + " ")
		shared = shared && p.shared
	}
	errs, ok := r.checked[key.String()]
	if !ok {
		for _, p := range m.Problems() {
			errs = append(errs, locateProblem(p, b, parts))
		}
		if shared {
			r.checked[key.String()] = errs
		}
	}
	r.report(m.Node, errs)
}

var taskNumber = regexp.MustCompile(`\btasks\[(\d+)\]`)

// locateProblem finds where the task was written that a problem of the whole
// manifest is about.
func locateProblem(p v1.Problem, b *base, parts []*rendered) *strict.Error {
	digits, rest, _ := strings.Cut(strings.TrimPrefix(p.Field, "tasks["), "]")
	i, err := strconv.Atoi(digits)
	if err != nil || i < 0 || i >= len(parts) {
		return &strict.Error{File: fleet.File, Line: 1, Column: 1, Field: p.Field, Message: p.Message}
	}
	p.Field = strings.TrimPrefix(strings.TrimPrefix(rest, ".with"), ".")
	// The manifest's numbering means nothing to who wrote the profiles.
	p.Message = taskNumber.ReplaceAllStringFunc(p.Message, func(s string) string {
		n, err := strconv.Atoi(taskNumber.FindStringSubmatch(s)[1])
		if err != nil || n >= len(b.templates) {
			return s
		}
		return fmt.Sprintf("task %s of %s", b.templates[n].task.ID, b.templates[n].file)
	})
	return b.templates[i].locate(parts[i], p)[0]
}

// report notes errors that were found for a node.
func (r *renderer) report(node string, errs strict.Errors) {
	for _, e := range errs {
		if s, ok := r.errs[*e]; ok {
			s.count++
			continue
		}
		r.errs[*e] = &seen{node: node, count: 1}
	}
}

// errors returns what was reported.
func (r *renderer) errors() error {
	if len(r.errs) == 0 {
		return nil
	}
	var out strict.Errors
	for e, s := range r.errs {
		switch {
		case s.node == "":
		case s.count == 1:
			e.Message += fmt.Sprintf(" (for node %s)", s.node)
		default:
			e.Message += fmt.Sprintf(" (for node %s and %d more)", s.node, s.count-1)
		}
		out = append(out, &e)
	}
	slices.SortFunc(out, func(a, b *strict.Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message))
	})
	return out
}
