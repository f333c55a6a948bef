package strict

import (
	"reflect"

	"gopkg.in/yaml.v3"
)

// Context is where a hook stands in a document: at one value.
type Context struct {
	d    *decoder
	node *yaml.Node
	loc  *loc
	// since is how many errors there were when the hook was called.
	since int
}

// Errorf reports an error at a field of the value: "mode", "tasks[0].id", or ""
// for the value itself. Its position is that of the field, or, where the field
// isn't there, of the nearest parent that is. The error is dropped when something
// was wrong there before the hook ran.
func (c *Context) Errorf(field, format string, args ...any) {
	l, n := extend(c.loc, c.node, field)
	known := c.d.first
	if field == "" {
		known = c.d.own
	}
	if number, ok := known[l.String()]; ok && number <= c.since {
		return
	}
	c.d.at(l, n, format, args...)
}

// Decode fills out, a pointer, from n, a node at or below the value that the
// hook was called for. Errors are collected with the rest.
// It reports whether there were none.
func (c *Context) Decode(n *yaml.Node, out any) bool {
	before := len(c.d.errs)
	l, ok := find(c.loc, c.node, n)
	if !ok {
		l = c.loc
	}
	c.d.decode(l, n, reflect.ValueOf(out).Elem())
	return len(c.d.errs) == before
}

// DecodeTemplate is Decode for a document with placeholders: a scalar for which
// opaque is true passes as a value of any scalar type, and no rule of Validate
// is applied to it. A string field keeps its text, others stay zero.
func (c *Context) DecodeTemplate(n *yaml.Node, out any, opaque func(*yaml.Node) bool) bool {
	saved := c.d.opaque
	c.d.opaque = opaque
	defer func() { c.d.opaque = saved }()
	return c.Decode(n, out)
}

// Scalar returns the text and tag (!!str, !!int, !!float, !!bool, !!timestamp) of the
// scalar n, which is at or below the value. Anything else, null too, is reported.
func (c *Context) Scalar(n *yaml.Node) (text, tag string, ok bool) {
	l, found := find(c.loc, c.node, n)
	if !found {
		l = c.loc
	}
	tag = n.ShortTag()
	if n.Kind != yaml.ScalarNode || tag == "!!null" || tag == "!!merge" {
		c.d.at(l, n, "found %s; allowed is a string, a number or a boolean", describe(n))
		return "", "", false
	}
	return n.Value, tag, true
}

// Value returns the node of a field of the value, or nil.
func (c *Context) Value(key string) *yaml.Node { return value(c.node, key) }

// Node returns the value's own node.
func (c *Context) Node() *yaml.Node { return c.node }
