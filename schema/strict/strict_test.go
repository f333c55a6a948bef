package strict_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/strict"
	"gopkg.in/yaml.v3"
)

type meta struct {
	Kind string `yaml:"kind"`
}

type item struct {
	Name string `yaml:"name"`
	Port int    `yaml:"port,omitempty"`
}

// Validate implements the hook: ports below 1024 are refused.
func (i item) Validate(c *strict.Context) {
	if i.Port < 1024 && i.Port != 0 {
		c.Errorf("port", "found %d; allowed is 1024 and above", i.Port)
	}
}

type pair struct{ left, right string }

// DecodeNode implements the hook: "left=right".
func (p *pair) DecodeNode(c *strict.Context, n *yaml.Node) {
	text, _, ok := c.Scalar(n)
	if !ok {
		return
	}
	if p.left, p.right, ok = strings.Cut(text, "="); !ok {
		c.Errorf("", "found %q; allowed is left=right", text)
	}
}

type document struct {
	meta   `yaml:",inline"`
	Name   string            `yaml:"name"`
	Items  []item            `yaml:"items,omitempty"`
	Labels map[string]string `yaml:"labels,omitempty"`
	On     *bool             `yaml:"on,omitempty"`
	Tiny   int8              `yaml:"tiny,omitempty"`
	Count  uint              `yaml:"count,omitempty"`
	Ratio  float64           `yaml:"ratio,omitempty"`
	When   time.Time         `yaml:"when,omitempty"`
	Pair   pair              `yaml:"pair,omitempty"`
	Raw    *yaml.Node        `yaml:"raw,omitempty"`
	Need   []string          `yaml:"need"`
	Inner  struct {
		Must bool `yaml:"must"`
	} `yaml:"inner,omitempty"`
	hidden string //nolint:unused // an unexported field must be left alone
}

func (d document) Validate(c *strict.Context) {
	if d.Name == "bad" {
		c.Errorf("name", "is bad")
	}
	if len(d.Items) > 1 && d.Items[0].Name == d.Items[1].Name {
		c.Errorf("items[1].name", "same as items[0]")
	}
	if d.Labels["forbidden.key"] != "" {
		c.Errorf(strict.Key("labels", "forbidden.key"), "is forbidden")
	}
}

func TestDecode(t *testing.T) {
	in := "\ufeff# a comment\n" + `kind: Doc
name: "9100"
items:
  - {name: a, port: 8080}
  - name: b
labels: {a.b/c: "x", empty: ""}
on: false
tiny: -128
count: 3
ratio: 1
when: 2026-01-31T15:04:05Z
pair: l=r
need: [x]
inner: {must: false}
raw: [1, two]
`
	var got document
	if err := strict.Decode("f.yaml", []byte(in), &got); err != nil {
		t.Fatal(err)
	}
	off := false
	want := document{
		meta: meta{Kind: "Doc"}, Name: "9100", Items: []item{{"a", 8080}, {"b", 0}},
		Labels: map[string]string{"a.b/c": "x", "empty": ""}, On: &off, Tiny: -128, Count: 3, Ratio: 1,
		When: time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC), Pair: pair{"l", "r"}, Need: []string{"x"},
		Raw: got.Raw,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got.Raw == nil || got.Raw.Line != 16 {
		t.Errorf("raw node = %+v, want one on line 16", got.Raw)
	}
}

// TestErrors holds what people read: every line of want is one error.
func TestErrors(t *testing.T) {
	const ok = "kind: D\nname: n\nneed: [x]\n"
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", "f:1:1: the document is empty"},
		{"only a comment", "# nothing\n", "f:1:1: the document is empty"},
		{"null", "null\n", "f:1:1: the document is empty"},
		{"a string", "hello\n", "f:1:1: found string \"hello\"; allowed is a mapping with the fields kind, name, items, labels, on, tiny, count, ratio, when, pair, raw, need, inner"},
		{"missing", "kind: D\n", "f:1:1: name: missing; this field is required\nf:1:1: need: missing; this field is required"},
		{"required null and empty", "kind:\nname: \"\"\nneed: []\n", "f:1:1: kind: found null; this field is required\nf:2:7: name: must not be empty\nf:3:7: need: must not be empty"},
		{"unknown field", ok + "lables: {}\n", "f:4:1: lables: unknown field; did you mean \"labels\"? allowed are kind, name, items, labels, on, tiny, count, ratio, when, pair, raw, need, inner"},
		{"unknown field, nothing near", ok + "items: [{name: a, command: x}]\n", "f:4:19: items[0].command: unknown field; allowed are name, port"},
		{"integer for string", "kind: D\nneed: [x]\nname: 9100\n", "f:3:7: name: found integer 9100; write it in quotes"},
		{"boolean for string", ok + "labels: {a: yes, b: true}\n", "f:4:21: labels.b: found boolean true; write it in quotes"},
		{"date for string", ok + "labels: {a: 2026-01-01}\n", "f:4:13: labels.a: found date 2026-01-01; write it in quotes"},
		{"string for integer", ok + "tiny: \"1\"\n", "f:4:7: tiny: found string \"1\"; allowed is an integer"},
		{"octal", ok + "tiny: 010\n", "f:4:7: tiny: found integer 010; write the integer in decimal"},
		{"range", ok + "tiny: 128\ncount: -1\n", "f:4:7: tiny: found integer 128, which is out of range\nf:5:8: count: found integer -1, which is out of range"},
		{"string for boolean", ok + "on: yes\n", "f:4:5: on: found string \"yes\"; allowed is true or false"},
		{"no number", ok + "ratio: much\n", "f:4:8: ratio: found string \"much\"; allowed is a number"},
		{"no time", ok + "when: noon\n", "f:4:7: when: found string \"noon\"; allowed is a time like 2026-01-31T15:04:05Z"},
		{"mapping for list", ok + "items: {}\n", "f:4:8: items: found a mapping; allowed is a list"},
		{"list for mapping", ok + "labels: []\n", "f:4:9: labels: found a list; allowed is a mapping"},
		{"list for string", "kind: []\nname: n\nneed: [x]\n", "f:1:7: kind: found a list; allowed is a string"},
		{"null item", ok + "items:\n  -\n  - name: a\n", "f:5:4: items[0]: found null; remove the item or give it a value"},
		{"null value in map", ok + "labels: {a: }\n", "f:4:10: labels.a: found null; remove the key or give it a value (\"\" is the empty string)"},
		{"nested required", ok + "inner: {}\n", "f:4:8: inner.must: missing; this field is required"},
		{"custom decoding", ok + "pair: lr\n", "f:4:7: pair: found \"lr\"; allowed is left=right"},
		{"custom decoding of a list", ok + "pair: [a]\n", "f:4:7: pair: found a list; allowed is a string, a number or a boolean"},
		{"duplicate key", ok + "labels: {a: b, a: c}\nname: m\n", "f:4:16: labels.a: duplicate key; first on line 4\nf:5:1: name: duplicate key; first on line 2"},
		{"duplicate key, quoted", ok + "\"name\": n\n", "f:4:1: name: duplicate key; first on line 2"},
		{"key is no string", ok + "labels: {1: a, true: b, [x]: c, null: d}\n", "f:4:10: labels: found integer 1 as a key; write it in quotes\nf:4:16: labels: found boolean true as a key; write it in quotes\nf:4:25: labels: found a list as a key; allowed is a string\nf:4:33: labels: found null as a key; write it in quotes"},
		{"long key", ok + "labels:\n  ? " + strings.Repeat("k", 600) + "\n  : v\n", "f:5:5: labels: found a key of 600 bytes; at most 512 are allowed"},
		{"empty optional string", ok + "items: [{name: \"\"}]\nlabels: {a: \"\"}\n", "f:4:16: items[0].name: must not be empty"},
		{"quotes forgotten", "kind: D\nneed: [${values.x}]\n", "f:2:1: this is not YAML: did not find expected ',' or ']'; inside { } and [ ] a value with ${...} needs quotes"},
		{"second document", ok + "---\nkind: E\n", "f:4:1: a second document begins here; one file holds one document"},
		{"second empty document", ok + "---\n", "f:4:1: a second document begins here; one file holds one document"},
		{"anchor and alias", "kind: &k D\nname: *k\nneed: [x]\n", "f:1:7: kind: anchor &k is not allowed; write the value out where it is used\nf:2:7: name: alias *k is not allowed; write the value out"},
		{"unknown alias", "kind: D\nname: *k\n", "f:2:1: this is not YAML: alias *k is not allowed; write the value out"},
		{"merge key", ok + "<<: {on: true}\n", "f:4:1: merge key << is not allowed; write the fields out"},
		{"tags", "kind: !!str D\nname: !foo n\nneed: !!set {x}\n", "f:1:7: kind: explicit tag !!str is not allowed; remove it\nf:2:7: name: explicit tag !foo is not allowed; remove it\nf:3:7: need: explicit tag !!set is not allowed; remove it"},
		{"binary", ok + "labels: {a: !!binary aGVsbG8=}\n", "f:4:13: labels.a: explicit tag !!binary is not allowed; remove it"},
		{"not UTF-8", "kind: D\nname: \xff\n", "f:2:7: byte 0xff is not UTF-8"},
		{"UTF-16", "\xff\xfek\x00", "f:1:1: byte 0xff is not UTF-8"},
		{"control character", "kind: D\nname: \x00\n", "f:2:7: character U+0000 is not allowed here; write \"\\u0000\" in double quotes"},
		{"line separator", "kind: \"a\u2028b\"\n", "f:1:9: character U+2028 is not allowed here; write \"\\u2028\" in double quotes"},
		{"old Mac line end", "kind: D\rname: n\n", "f:1:8: character U+000D is not allowed here; write \"\\u000D\" in double quotes"},
		{"unterminated", "kind: D\nname: \"n\nneed: x\n", "f:2:1: this is not YAML: found unexpected end of stream"},
		{"bad indentation", "kind: D\nitems:\n  - name: a\n   port: 1\n", "f:3:3: this is not YAML: did not find expected '-' indicator"},
		{"tab", "kind: D\nitems:\n\t- name: a\n", "f:3:1: this is not YAML: found character that cannot start any token"},
		{"unclosed list", "kind: D\nneed: [a, b\nname: n\n", "f:2:1: this is not YAML: did not find expected ',' or ']'"},
		{"validation, nested first", "kind: D\nname: bad\nneed: [x]\nitems: [{name: a, port: 80}, {name: a}]\nlabels: {forbidden.key: x}\n",
			"f:2:7: name: is bad\nf:4:25: items[0].port: found 80; allowed is 1024 and above\nf:4:37: items[1].name: same as items[0]\nf:5:25: labels[\"forbidden.key\"]: is forbidden"},
		{"validation says nothing of what is wrong anyway", "kind: D\nname: bad\nneed: [x]\nitems: [{name: 1}, {name: 1}]\n",
			"f:2:7: name: is bad\nf:4:16: items[0].name: found integer 1; write it in quotes\nf:4:27: items[1].name: found integer 1; write it in quotes"},
		{"deep", ok + "raw: " + strings.Repeat("[", 70) + strings.Repeat("]", 70) + "\n", "f:4:69: raw" + strings.Repeat("[0]", 63) + ": nested deeper than 64 levels"},
		{"deeper than yaml.v3 goes", strings.Repeat("[", 20000), "f:1:1: this is not YAML: exceeded max depth of 10000"},
		{"too big", strings.Repeat("#", strict.MaxSize+1), "f:1:1: the document has 1048577 bytes; at most 1048576 are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out document
			err := strict.Decode("f", []byte(tt.in), &out)
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("got:\n%v\nwant:\n%s", err, tt.want)
			}
			var es strict.Errors
			if !errors.As(err, &es) {
				t.Errorf("error is a %T, want Errors", err)
			}
		})
	}
}
