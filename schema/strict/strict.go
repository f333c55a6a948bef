// Package strict decodes YAML that people write. Everything that isn't known is
// an error: an unknown field, a duplicate key, a second document, an alias, a
// value of another type. All errors of a file are reported at once, each with
// file:line:column, the field's path, what was found and what is allowed.
//
// Flow: Decode parses one document into a yaml.Node, DecodeNode fills a Go value
// from it by reflection, and types that know more rules than their shape state
// them in Validate, which runs after the shape was found good.
package strict

import (
	"fmt"
	"strings"
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
