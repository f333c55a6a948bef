package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
	published "github.com/gpuaas/node-agent/schema/v1/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"
)

const testdata = "../v1/testdata"

func TestSchemasAreCurrent(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(v1.Kinds()) {
		t.Errorf("%d schemas for %d kinds", len(files), len(v1.Kinds()))
	}
	for _, kind := range v1.Kinds() {
		got, ok := published.ByKind(kind)
		if !ok || !bytes.Equal(got, files[published.FileName(kind)]) {
			t.Errorf("the schema of %s is not current: run go generate ./schema/...", kind)
		}
	}
}

// kinds tells what a file of testdata is by the first word of its name.
var kinds = map[string]string{
	"fleet": v1.KindFleet, "package": v1.KindPackage, "profile": v1.KindProfile,
	"node": v1.KindNode, "manifest": v1.KindNodeManifest, "status": v1.KindNodeStatus,
	"version": v1.KindFleet, "kind": v1.KindFleet,
}

// strictly decodes data as a kind.
func strictly(kind string, data []byte) (err error) {
	switch kind {
	case v1.KindFleet:
		_, err = v1.DecodeFleet("f", data)
	case v1.KindPackage:
		_, err = v1.DecodePackage("f", data)
	case v1.KindProfile:
		_, err = v1.DecodeProfile("f", data)
	case v1.KindNode:
		_, err = v1.DecodeNode("f", data)
	case v1.KindNodeManifest:
		_, err = v1.DecodeManifest("f", data)
	case v1.KindNodeStatus:
		_, err = v1.DecodeStatus("f", data)
	default:
		err = fmt.Errorf("no kind %q", kind)
	}
	return err
}

func compile(t *testing.T, kind string) *validator.Schema {
	t.Helper()
	data, ok := published.ByKind(kind)
	if !ok {
		t.Fatalf("no schema for %s", kind)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("schema.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("schema.json")
	if err != nil {
		t.Fatalf("the schema of %s is not valid: %v", kind, err)
	}
	return schema
}

// plain turns a node into what a JSON parser would give.
func plain(n *yaml.Node) any {
	switch n.Kind {
	case yaml.DocumentNode:
		return plain(n.Content[0])
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			list = append(list, plain(item))
		}
		return list
	}
	if n.ShortTag() == "!!timestamp" {
		return n.Value
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return n.Value
	}
	return v
}

type example struct {
	name, kind string
	data       []byte
	root       *yaml.Node
}

func examples(t *testing.T, folder string) []example {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(testdata, folder, "*.[yj]*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", folder, err)
	}
	var out []example
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		word, _, _ := strings.Cut(strings.TrimSuffix(name, filepath.Ext(name)), "-")
		e := example{name: name, kind: kinds[word], data: data, root: new(yaml.Node)}
		if err := yaml.Unmarshal(data, e.root); err != nil {
			if folder == "valid" {
				t.Fatal(err)
			}
			continue // not YAML: no schema ever sees it
		}
		out = append(out, e)
	}
	return out
}

func TestSchemasAcceptValidDocuments(t *testing.T) {
	for _, e := range examples(t, "valid") {
		t.Run(e.name, func(t *testing.T) {
			if err := compile(t, e.kind).Validate(plain(e.root)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSchemasRefuseInvalidDocuments(t *testing.T) {
	// What no schema can say: that a host needs a dot or a port.
	beyond := map[string]bool{"package-ref-without-host.yaml": true}
	for _, e := range examples(t, "invalid") {
		t.Run(e.name, func(t *testing.T) {
			err := compile(t, e.kind).Validate(plain(e.root))
			if err == nil && !beyond[e.name] {
				t.Error("the schema accepts it")
			}
			if err != nil && beyond[e.name] {
				t.Error("the schema refuses it; take it off the list")
			}
		})
	}
}

// TestSchemasAgreeWithStrictDecoding changes each valid document in every place, in
// every way that concerns its shape, and compares the two answers.
func TestSchemasAgreeWithStrictDecoding(t *testing.T) {
	total := 0
	for _, e := range examples(t, "valid") {
		schema := compile(t, e.kind)
		mutate(e.root.Content[0], "", func(what string) {
			total++
			data, err := yaml.Marshal(e.root)
			if err != nil {
				t.Fatal(err)
			}
			refusal := strictly(e.kind, data)
			complaint := schema.Validate(plain(e.root))
			switch {
			case refusal != nil && complaint == nil && !crossField(refusal):
				t.Errorf("%s: %s: strict decoding refuses it, the schema accepts it: %v", e.name, what, refusal)
			case refusal == nil && complaint != nil:
				t.Errorf("%s: %s: strict decoding accepts it, the schema refuses it: %v", e.name, what, complaint)
			}
		})
	}
	if total < 1000 {
		t.Errorf("only %d mutations were tried", total)
	}
}

// crossField reports whether all errors are of a kind that looks at two fields at once.
func crossField(err error) bool {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		ok := false
		for _, words := range []string{
			"in this manifest", "is declared by", "is taken by", "is the id of", "goes with",
			"shorter than stableFor", "is listed twice", "needs TLS", "allowed is the id of a task",
		} {
			ok = ok || strings.Contains(line, words)
		}
		if !ok {
			return false
		}
	}
	return true
}

// mutate changes one thing at a time below n, calls try, and changes it back.
func mutate(n *yaml.Node, path string, try func(what string)) {
	scalar := func(tag, value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value} }
	others := []*yaml.Node{
		scalar("!!int", "12345"), scalar("!!bool", "true"), scalar("!!float", "1.5"), scalar("!!str", ""), scalar("!!str", "/ \x01"),
		{Kind: yaml.SequenceNode, Tag: "!!seq"}, {Kind: yaml.MappingNode, Tag: "!!map"},
		{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{scalar("!!int", "1")}},
	}
	swap := func(at *yaml.Node, path string) {
		saved := *at
		for _, other := range others {
			*at = *other
			try(fmt.Sprintf("%s = %s %q", path, other.Tag, other.Value))
		}
		*at = saved
	}
	switch n.Kind {
	case yaml.MappingNode:
		saved := n.Content
		n.Content = append([]*yaml.Node{scalar("!!str", "unheard of"), scalar("!!str", "x")}, saved...)
		try(path + " with an unknown field")
		n.Content = saved
		for i := 0; i+1 < len(saved); i += 2 {
			at := path + "." + saved[i].Value
			n.Content = append(append([]*yaml.Node{}, saved[:i]...), saved[i+2:]...)
			try(at + " left out")
			n.Content = saved
			swap(saved[i+1], at)
			mutate(saved[i+1], at, try)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			swap(item, at)
			mutate(item, at, try)
		}
	}
}

// TestEveryFieldIsDescribed: what editors show when a reader points at a field.
func TestEveryFieldIsDescribed(t *testing.T) {
	for _, kind := range v1.Kinds() {
		data, _ := published.ByKind(kind)
		doc, err := validator.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		described(t, kind, doc)
	}
}

func described(t *testing.T, path string, v any) {
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	if properties, ok := m["properties"].(map[string]any); ok {
		for name, p := range properties {
			property := p.(map[string]any)
			_, condition := property["const"]
			if _, ok := property["description"]; !ok && !condition && !strings.Contains(path, "allOf") {
				t.Errorf("%s.%s has no description: give the Go field a comment", path, name)
			}
		}
	}
	for key, inner := range m {
		if key != "allOf" {
			described(t, path+"."+key, inner)
		}
	}
}
