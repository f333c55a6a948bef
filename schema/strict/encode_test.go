package strict_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/strict"
	"gopkg.in/yaml.v3"
)

type leaf struct {
	Text  string `yaml:"text,omitempty"`
	Count int    `yaml:"count"`
}

type tree struct {
	meta   `yaml:",inline"`
	Name   string            `yaml:"name"`
	Leaf   leaf              `yaml:"leaf"`
	None   leaf              `yaml:"none,omitempty"`
	Ptr    *leaf             `yaml:"ptr,omitempty"`
	Leaves []leaf            `yaml:"leaves,omitempty"`
	Ptrs   []*leaf           `yaml:"ptrs,omitempty"`
	Map    map[string]string `yaml:"map"`
	Deep   map[string]leaf   `yaml:"deep,omitempty"`
	Lists  map[string][]int  `yaml:"lists,omitempty"`
	On     *bool             `yaml:"on,omitempty"`
	U      uint8             `yaml:"u,omitempty"`
	When   time.Time         `yaml:"when,omitempty"`
	Times  []time.Time       `yaml:"times,omitempty"`
	Texts  []string          `yaml:"texts,omitempty"`
}

func sample() tree {
	off := false
	when := time.Date(2026, 1, 31, 15, 4, 5, 6, time.UTC)
	return tree{
		meta: meta{Kind: "Tree"}, Name: "n", Leaf: leaf{Text: "a\nb\n"}, Ptr: &leaf{Count: -1},
		Leaves: []leaf{{Text: "x", Count: 1}, {}}, Ptrs: []*leaf{{Count: 2}},
		Map: map[string]string{"b": "2", "a": "true", "a b": "  x", "": "y"}, Deep: map[string]leaf{"k": {Text: "t"}},
		Lists: map[string][]int{"e": {}, "f": {1, 2}}, On: &off, U: 255, When: when, Times: []time.Time{when}, Texts: []string{"plain", "two words", "1\n2"},
	}
}

func TestEncodeIsCanonical(t *testing.T) {
	const want = `kind: Tree
name: "n"
leaf:
  text: |
    a
    b
  count: 0
ptr:
  count: -1
leaves:
  - text: x
    count: 1
  - count: 0
ptrs:
  - count: 2
map:
  "": "y"
  a: "true"
  "a b": "  x"
  b: "2"
deep:
  k:
    text: t
    count: 0
lists:
  e: []
  f:
    - 1
    - 2
on: false
u: 255
when: "2026-01-31T15:04:05.000000006Z"
times:
  - "2026-01-31T15:04:05.000000006Z"
texts:
  - plain
  - "two words"
  - |-
    1
    2
`
	in := sample()
	got, err := strict.Encode(&in)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got:\n%s", got)
	}
	var back tree
	if err := strict.Decode("f", got, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, in) {
		t.Errorf("got %+v, want %+v", back, in)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   any
		want string
	}{
		{"not UTF-8", leaf{Text: "a\xff"}, "cannot encode text: it is not UTF-8"},
		{"key not UTF-8", tree{Map: map[string]string{"\xff": ""}}, `cannot encode map["\xff"]: its name is not UTF-8`},
		{"long key", tree{Map: map[string]string{strings.Repeat("k", 513): ""}}, "cannot encode map: a name in it has 513 bytes, or characters that need escapes; at most 512 are allowed"},
		{"key of escapes", tree{Map: map[string]string{strings.Repeat("\x05", 200): ""}}, "cannot encode map: a name in it has 200 bytes, or characters that need escapes; at most 512 are allowed"},
		{"nil in a list", tree{Ptrs: []*leaf{nil}}, "cannot encode ptrs[0]: it is nil"},
		{"too big", leaf{Text: strings.Repeat("x", strict.MaxSize)}, "the document has 1048594 bytes; at most 1048576 are allowed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := strict.Encode(tt.in); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// hardTexts are strings that have broken YAML writers.
func hardTexts() []string {
	return []string{
		"", " ", "a", "a ", " a", "-", "- a", "?", ":", "a:", "a: b", "#", "a #b", "&a", "*a", "!a", "!!str", "|", ">", "%", "@", "`", "'", `"`, `\`, "{", "}", "[", "]", ",",
		"null", "Null", "~", "true", "FALSE", "yes", "No", "on", "off", "y", "N", ".inf", "-.INF", ".nan", "NaN", "inf", "<<", "=",
		"0", "1", "-1", "+1", "0x10", "0o7", "010", "1_000", "1e3", "1.5", ".5", "1:30", "190:20:30", "2026-01-01", "2026-01-01T00:00:00Z", "a-1", "/a", "~a", "e1",
		"\n", "\n\n", "a\n", "a\n\n", "\na", "\n a", " a\nb", "a\n b\n", "a\n\nb", "a \nb", "a\n \nb", "\ta\nb", "a\n\tb\n", "a\r\nb", "a\rb", "\r", "\t", "a\tb",
		"---", "...", "--- a\n", "a\n---\nb\n", "a\n...\n", "# a\nb\n", "a\n# b\n", "- a\n- b\n", "a: b\nc: d\n", "|\n", "'\n\"\n",
		"\x00", "\x01\x1f", "\x7f", "\u0080\u009f", "\u0085", "a\u0085b\n", "\u2028", "a\u2029b\nc", "\ufeff", "\ufeffa\n", "\ufffe", "\uffff", "\ufffd", "\U0001f600", "ä\nö\n", "\u00a0",
		strings.Repeat("\x05", 1500), strings.Repeat("x", 5000), strings.Repeat("x y", 2000) + "\n" + strings.Repeat("z", 3000), strings.Repeat("\n", 100) + "a",
	}
}

// roundTrip shows that Decode, and yaml.v3 alone, read a string back.
func roundTrip(t *testing.T, s string) {
	t.Helper()
	key := s
	if len(key) > 150 { // YAML takes 1024 characters as a key, escapes of 6 included
		key = strings.ToValidUTF8(key[:150], "")
	}
	in := tree{meta: meta{Kind: "T"}, Name: "x" + s, Leaf: leaf{Text: s}, Map: map[string]string{key: s, "k": s}, Texts: []string{s, s}}
	data, err := strict.Encode(in)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	var back tree
	if err := strict.Decode("f", data, &back); err != nil {
		t.Fatalf("%q: %v\n%s", s, err, data)
	}
	if !reflect.DeepEqual(back, in) {
		t.Errorf("%q: got %+v, from\n%s", s, back, data)
	}
	var loose struct {
		Leaf leaf
		Map  map[string]string
	}
	if err := yaml.Unmarshal(data, &loose); err != nil || loose.Leaf.Text != s || loose.Map[key] != s {
		t.Errorf("%q: yaml.v3 reads %+v, %v", s, loose, err)
	}
	again, err := strict.Encode(back)
	if err != nil || string(again) != string(data) {
		t.Errorf("%q: the second encoding differs: %v\n%s", s, err, again)
	}
}

func TestEncodedTextIsReadBack(t *testing.T) {
	for _, s := range hardTexts() {
		roundTrip(t, s)
	}
}

func FuzzEncode(f *testing.F) {
	for _, s := range hardTexts() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) < 100_000 {
			roundTrip(t, strings.ToValidUTF8(s, "\ufffd"))
		}
	})
}
