// Package strict decodes YAML that people write. Everything that isn't known is
// an error: an unknown field, a duplicate key, a second document, an alias, an
// anchor, an explicit tag, a value of another type. All errors of a file are
// reported at once, in order of position, each with file:line:column, the
// field's path, what was found and what is allowed.
//
// Flow: the bytes are checked (size, UTF-8, control characters), parsed into a
// yaml.Node by yaml.v3, the tree is checked for what YAML has and this format
// has not, and then a Go value is filled by reflection over its `yaml` tags.
// JSON documents are YAML and decode as well.
//
// # What a field must be
//
// A field whose tag has no "omitempty" is required: it must be there and not be
// null, and a string, list or map element of it must be of the Go type exactly:
// 9100 is no string, "9100" is no integer. A string in a field must not be
// empty, nor a required list. Pointer fields are never required. An optional
// field may be null, which is the same as leaving it out. Integers are decimal.
//
// # Hooks
//
// A type may know more than its shape shows:
//
//	Accept(c *Context) bool             // before the fields: false = don't look inside
//	DecodeNode(c *Context, n *yaml.Node) // decode it some other way
//	Validate(c *Context)                // after the fields, children first
//
// Types with encoding.TextUnmarshaler take any scalar's text. Validate runs
// even when some fields were wrong, so it must bear zero values; what it says
// about a field that was reported already is dropped.
package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Limits of one document.
const (
	// MaxSize is the most bytes that a document may have.
	MaxSize = 1 << 20
	// MaxDepth is how deep lists and mappings may nest.
	MaxDepth = 64
	// MaxKey is the most bytes of a key. YAML reads no more than 1024 characters.
	MaxKey = 512
	// MaxErrors is how many errors are collected before giving up.
	MaxErrors = 1000
)

// Error is one thing that is wrong in a file.
type Error struct {
	File         string
	Line, Column int
	// Field is the path of the field, "tasks[0].with.mode"; "" for the document.
	Field   string
	Message string
}

// Error implements error: "nodes/a.yaml:3:5: tasks[0].with.mode: found ...".
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are all that is wrong, in order of position.
type Errors []*Error

// Error implements error: one line each.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Decode fills out, a pointer, from the one document in data. file names the
// source in errors. The error, if any, is of type Errors; out is then partly
// filled and must not be used.
func Decode(file string, data []byte, out any) error {
	d := newDecoder(file)
	if root := d.parse(data); root != nil {
		d.root(root, out)
	}
	return d.result(data)
}

// Parse returns the root of the one document in data, with positions. It has no
// anchors, aliases, merge keys, explicit tags or duplicate keys, and all its
// keys are strings. The error, if any, is of type Errors.
func Parse(file string, data []byte) (*yaml.Node, error) {
	d := newDecoder(file)
	root := d.parse(data)
	if err := d.result(data); err != nil {
		return nil, err
	}
	return root, nil
}

// DecodeNode fills out, a pointer, from a node that Parse returned, or that was
// derived from one. The error, if any, is of type Errors.
func DecodeNode(file string, n *yaml.Node, out any) error {
	d := newDecoder(file)
	if n != nil && n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n == nil {
		d.add(nil, 1, 1, "the document is empty")
		return d.result(nil)
	}
	d.structure(n, nil, 1)
	d.root(n, out)
	return d.result(nil)
}

// decoder collects the errors of one document.
type decoder struct {
	file string
	errs Errors
	// first holds, by path, the number (from 1) of the first error at or below it;
	// 0 for a path whose value is not known yet (see Context.DecodeTemplate).
	first map[string]int
	// own is first's like for errors exactly at the path, or one level below.
	own map[string]int
	// opaque says which scalars stand for a value that is not known yet.
	opaque func(*yaml.Node) bool
	types  map[reflect.Type][]structField
}

func newDecoder(file string) *decoder {
	return &decoder{file: file, first: map[string]int{}, own: map[string]int{}, types: map[reflect.Type][]structField{}}
}

// add reports an error at a path and position.
func (d *decoder) add(l *loc, line, column int, format string, args ...any) {
	if len(d.errs) > MaxErrors {
		return
	}
	message := fmt.Sprintf(format, args...)
	field := l.String()
	if len(d.errs) == MaxErrors {
		field, message = "", "too many errors; correct the ones before first"
	}
	d.errs = append(d.errs, &Error{File: d.file, Line: line, Column: column, Field: field, Message: message})
	d.mark(l, len(d.errs))
}

// at reports an error at the position of a node.
func (d *decoder) at(l *loc, n *yaml.Node, format string, args ...any) {
	d.add(l, n.Line, n.Column, format, args...)
}

// mark notes that there is an error at a path.
func (d *decoder) mark(l *loc, number int) {
	note := func(m map[string]int, key string) {
		if _, ok := m[key]; !ok {
			m[key] = number
		}
	}
	for p := l; p != nil; p = p.parent {
		note(d.first, p.String())
	}
	note(d.first, "")
	note(d.own, l.String())
	if l != nil {
		note(d.own, l.parent.String())
	}
}

// result returns the errors in order, with positions inside data.
func (d *decoder) result(data []byte) error {
	if len(d.errs) == 0 {
		return nil
	}
	if data != nil {
		lines := strings.Split(string(data), "\n")
		for _, e := range d.errs {
			e.Line = min(max(e.Line, 1), len(lines))
			width := len([]rune(lines[e.Line-1]))
			e.Column = min(max(e.Column, 1), width+1)
		}
	}
	slices.SortStableFunc(d.errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return slices.CompactFunc(d.errs, func(a, b *Error) bool { return *a == *b })
}
