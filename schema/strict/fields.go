package strict

import (
	"fmt"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// structField is one field of a struct, by its `yaml` tag.
type structField struct {
	name      string
	index     []int
	required  bool
	omitEmpty bool
}

// fields returns the fields of a struct type in the order of the source, those
// of inline structs in their place.
func (d *decoder) fields(t reflect.Type) []structField {
	if known, ok := d.types[t]; ok {
		return known
	}
	var out []structField
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case name == "-", !f.IsExported() && !f.Anonymous:
			continue
		case strings.Contains(options, "inline"):
			for _, inner := range d.fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				out = append(out, inner)
			}
			continue
		case name == "":
			name = strings.ToLower(f.Name)
		}
		pointer := f.Type.Kind() == reflect.Pointer && f.Type.Elem() != nodeType
		omitEmpty := strings.Contains(options, "omitempty")
		out = append(out, structField{name: name, index: []int{i}, required: !pointer && !omitEmpty, omitEmpty: omitEmpty})
	}
	d.types[t] = out
	return out
}

func fieldNamed(fields []structField, name string) *structField {
	for i := range fields {
		if fields[i].name == name {
			return &fields[i]
		}
	}
	return nil
}

func fieldNames(fields []structField) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

// suggest says what could be meant by an unknown field.
func suggest(found string, fields []structField) string {
	best, distance := "", 3
	if len(found) <= 64 {
		for _, f := range fields {
			limit := min(distance, len(f.name)/3+1)
			if n := editDistance(strings.ToLower(found), strings.ToLower(f.name)); n < limit {
				best, distance = f.name, n
			}
		}
	}
	if best != "" {
		return fmt.Sprintf("did you mean %q? allowed are %s", best, fieldNames(fields))
	}
	return "allowed are " + fieldNames(fields)
}

// editDistance is Levenshtein's, over bytes, plus the swap of two neighbours.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// describe says what a node is, in words for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	text := n.Value
	if runes := []rune(text); len(runes) > 60 {
		text = string(runes[:60]) + "…"
	}
	switch n.ShortTag() {
	case "!!null":
		return "null"
	case "!!int":
		return "integer " + text
	case "!!float":
		return "number " + text
	case "!!bool":
		return "boolean " + text
	case "!!timestamp":
		return "date " + text
	}
	return fmt.Sprintf("string %q", text)
}
