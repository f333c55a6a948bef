package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/invopop/jsonschema"
	"gopkg.in/yaml.v3"
)

// base is where the schemas say that they live; nothing fetches them from there.
const base = "https://fleet.gpuaas.dev/schemas/v1/"

const module = "github.com/gpuaas/node-agent/schema/"

// document is one kind with its Go type.
type document struct {
	kind  string
	value any
	// template is true where tasks are written before interpolation.
	template bool
}

func documents() []document {
	return []document{
		{v1.KindFleet, v1.Fleet{}, false},
		{v1.KindPackage, v1.PackagePin{}, false},
		{v1.KindProfile, v1.Profile{}, true},
		{v1.KindNode, v1.Node{}, true},
		{v1.KindNodeManifest, v1.NodeManifest{}, false},
		{v1.KindNodeStatus, v1.NodeStatus{}, false},
	}
}

// generate returns the schemas by file name. source is the folder schema, whose
// comments become descriptions.
func generate(source string) (map[string][]byte, error) {
	comments, err := readComments(source)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, d := range documents() {
		root := reflectDocument(d, comments)
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(root); err != nil {
			return nil, fmt.Errorf("cannot encode the schema of %s: %w", d.kind, err)
		}
		files[strings.ToLower(d.kind)+".schema.json"] = []byte(readable.Replace(b.String()))
	}
	return files, nil
}

// readable undoes escapes for HTML, which the library's encoder insists on.
var readable = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")

// readComments returns the doc comments of v1 and task by Go name.
func readComments(source string) (map[string]string, error) {
	out := map[string]string{}
	for _, pkg := range []string{"v1", "task"} {
		var r jsonschema.Reflector
		// The reflector joins the folder's own name to the base, so hand in no base
		// and put the import path in its place.
		if err := r.AddGoComments("", filepath.Join(source, pkg), jsonschema.WithFullComment()); err != nil {
			return nil, fmt.Errorf("cannot read the comments of %s: %w", pkg, err)
		}
		folder := filepath.ToSlash(filepath.Join(source, pkg)) + "."
		for name, text := range r.CommentMap {
			if rest, ok := strings.CutPrefix(name, folder); ok {
				out[module+pkg+"."+rest] = strings.Join(strings.Fields(text), " ")
			}
		}
	}
	return out, nil
}

// reflectDocument returns the whole schema of one kind.
func reflectDocument(d document, comments map[string]string) *jsonschema.Schema {
	r := jsonschema.Reflector{ExpandedStruct: true, Anonymous: true, CommentMap: comments, Mapper: mapped, Namer: nameOf}
	root := r.Reflect(d.value)
	root.ID = jsonschema.ID(base + strings.ToLower(d.kind) + ".schema.json")
	root.Title = d.kind
	setConst(root, "apiVersion", v1.APIVersion)
	setConst(root, "kind", d.kind)
	name := reflect.TypeOf(d.value).Name()
	for _, holder := range []string{"Task", "TaskTemplate"} {
		if def := root.Definitions[holder]; def != nil {
			for _, k := range task.Kinds() {
				addSpec(root, &r, k, d.template)
			}
			typeTask(def)
		}
	}
	refine(name, root)
	for name, def := range root.Definitions {
		refine(name, def)
	}
	if d.template {
		done := map[*jsonschema.Schema]bool{}
		for _, k := range task.Kinds() {
			allowPlaceholders(root, root.Definitions[specName(k)], done)
		}
	}
	return root
}

// nameOf keeps yaml.Node from being taken for v1.Node; "" is the type's own name.
func nameOf(t reflect.Type) string {
	if t == reflect.TypeFor[yaml.Node]() {
		return "YAML"
	}
	return ""
}

func setConst(s *jsonschema.Schema, field string, value any) {
	property, _ := s.Properties.Get(field)
	property.Const = value
}

func specName(k task.Kind) string { return reflect.TypeOf(k.New()).Elem().Name() }

// addSpec puts the fields of a kind, and what they use, among the definitions.
func addSpec(root *jsonschema.Schema, r *jsonschema.Reflector, k task.Kind, template bool) {
	sub := r.Reflect(k.New())
	for name, def := range sub.Definitions {
		root.Definitions[name] = def
	}
	sub.Definitions, sub.Version = nil, ""
	root.Definitions[specName(k)] = sub
	if template {
		sub.Description += " Any value may hold ${...}."
	}
}

// typeTask ties "with" to "type".
func typeTask(def *jsonschema.Schema) {
	kind, _ := def.Properties.Get("type")
	for _, k := range task.Kinds() {
		kind.Enum = append(kind.Enum, k.Type)
		when := jsonschema.NewProperties()
		when.Set("type", &jsonschema.Schema{Const: k.Type})
		then := jsonschema.NewProperties()
		then.Set("with", &jsonschema.Schema{Ref: "#/$defs/" + specName(k)})
		def.AllOf = append(def.AllOf, &jsonschema.Schema{
			If:   &jsonschema.Schema{Properties: when, Required: []string{"type"}},
			Then: &jsonschema.Schema{Properties: then},
		})
	}
	kind.Extras = map[string]any{"markdownEnumDescriptions": kindDocs()}
}

func kindDocs() []string {
	var docs []string
	for _, k := range task.Kinds() {
		docs = append(docs, k.Doc)
	}
	return docs
}

// allowPlaceholders lets every scalar at or below s hold ${...} as well.
func allowPlaceholders(root, s *jsonschema.Schema, done map[*jsonschema.Schema]bool) {
	if done[s] {
		return
	}
	done[s] = true
	open := func(p *jsonschema.Schema) *jsonschema.Schema {
		if target, ok := strings.CutPrefix(p.Ref, "#/$defs/"); ok {
			if def := root.Definitions[target]; def.Type == "object" {
				allowPlaceholders(root, def, done)
				return p
			}
		}
		if p.Type == "object" || p.Type == "array" {
			allowPlaceholders(root, p, done)
			return p
		}
		description := p.Description
		p.Description = ""
		return &jsonschema.Schema{
			AnyOf:       []*jsonschema.Schema{p, {Type: "string", Pattern: `\$\{`}},
			Description: description,
		}
	}
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		pair.Value = open(pair.Value)
	}
	if s.Items != nil {
		s.Items = open(s.Items)
	}
}
