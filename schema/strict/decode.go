package strict

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"
)

// The hooks that a type may have; see the package comment.
type (
	accepter    interface{ Accept(c *Context) bool }
	nodeDecoder interface {
		DecodeNode(c *Context, n *yaml.Node)
	}
	validator interface{ Validate(c *Context) }
)

var nodeType = reflect.TypeFor[yaml.Node]()

// root decodes the document's root.
func (d *decoder) root(n *yaml.Node, out any) {
	v := reflect.ValueOf(out)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		panic(fmt.Sprintf("strict: cannot decode into %T: need a pointer", out))
	}
	if isNull(n) {
		d.at(nil, n, "the document is empty")
		return
	}
	d.decode(nil, n, v.Elem())
}

// decode fills v, which is addressable, from n, which is not null.
func (d *decoder) decode(l *loc, n *yaml.Node, v reflect.Value) {
	if refused(n) {
		return
	}
	switch {
	case v.Type() == nodeType:
		v.Set(reflect.ValueOf(*n))
		return
	case v.Type() == reflect.PointerTo(nodeType):
		v.Set(reflect.ValueOf(n))
		return
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.decode(l, n, v.Elem())
		return
	}
	if d.placeholder(l, n, v) {
		return
	}
	self := v.Addr().Interface()
	if a, ok := self.(accepter); ok && !a.Accept(d.context(l, n)) {
		return
	}
	if custom, ok := self.(nodeDecoder); ok {
		custom.DecodeNode(d.context(l, n), n)
	} else if text, ok := self.(encoding.TextUnmarshaler); ok {
		d.text(l, n, text)
	} else if !d.shape(l, n, v) {
		return
	}
	if checked, ok := self.(validator); ok {
		checked.Validate(d.context(l, n))
	}
}

func (d *decoder) context(l *loc, n *yaml.Node) *Context {
	return &Context{d: d, node: n, loc: l, since: len(d.errs)}
}

// placeholder takes a scalar whose value is not known yet.
func (d *decoder) placeholder(l *loc, n *yaml.Node, v reflect.Value) bool {
	if d.opaque == nil || n.Kind != yaml.ScalarNode || !d.opaque(n) {
		return false
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice:
		return false
	case reflect.String:
		v.SetString(n.Value)
	}
	d.first[l.String()], d.own[l.String()] = 0, 0
	return true
}

// shape decodes by Go kind. It returns false when n is of another kind altogether.
func (d *decoder) shape(l *loc, n *yaml.Node, v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Struct:
		return d.object(l, n, v)
	case reflect.Map:
		return d.mapping(l, n, v)
	case reflect.Slice:
		return d.list(l, n, v)
	case reflect.String:
		return d.str(l, n, v)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.at(l, n, "found %s; allowed is true or false", describe(n))
			return false
		}
		v.SetBool(n.Value[0] == 't' || n.Value[0] == 'T')
		return true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return d.integer(l, n, v)
	case reflect.Float64:
		if tag := n.ShortTag(); n.Kind == yaml.ScalarNode && (tag == "!!float" || tag == "!!int") {
			if f, err := strconv.ParseFloat(n.Value, 64); err == nil {
				v.SetFloat(f)
				return true
			}
		}
		d.at(l, n, "found %s; allowed is a number", describe(n))
		return false
	}
	panic(fmt.Sprintf("strict: cannot decode into %s: give it a DecodeNode method", v.Type()))
}

func (d *decoder) str(l *loc, n *yaml.Node, v reflect.Value) bool {
	switch {
	case n.Kind != yaml.ScalarNode || isNull(n):
		d.at(l, n, "found %s; allowed is a string", describe(n))
	case n.ShortTag() != "!!str":
		d.at(l, n, "found %s; write it in quotes", describe(n))
	default:
		v.SetString(n.Value)
		return true
	}
	return false
}

var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

func (d *decoder) integer(l *loc, n *yaml.Node, v reflect.Value) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		d.at(l, n, "found %s; allowed is an integer", describe(n))
		return false
	}
	if !decimal.MatchString(n.Value) {
		d.at(l, n, "found %s; write the integer in decimal", describe(n))
		return false
	}
	var err error
	if v.CanInt() {
		var i int64
		i, err = strconv.ParseInt(n.Value, 10, v.Type().Bits())
		v.SetInt(i)
	} else {
		var u uint64
		u, err = strconv.ParseUint(n.Value, 10, v.Type().Bits())
		v.SetUint(u)
	}
	if err != nil {
		d.at(l, n, "found %s, which is out of range", describe(n))
	}
	return err == nil
}

// text decodes a type that reads itself from text.
func (d *decoder) text(l *loc, n *yaml.Node, t encoding.TextUnmarshaler) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		d.at(l, n, "found %s; allowed is a string", describe(n))
		return
	}
	if err := t.UnmarshalText([]byte(n.Value)); err != nil {
		if _, ok := t.(*time.Time); ok {
			d.at(l, n, "found %s; allowed is a time like 2026-01-31T15:04:05Z", describe(n))
			return
		}
		d.at(l, n, "found %s; %v", describe(n), err)
	}
}

func (d *decoder) list(l *loc, n *yaml.Node, v reflect.Value) bool {
	if n.Kind != yaml.SequenceNode {
		d.at(l, n, "found %s; allowed is a list", describe(n))
		return false
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		if isNull(item) {
			d.at(l.item(i), item, "found null; remove the item or give it a value")
			continue
		}
		d.decode(l.item(i), item, out.Index(i))
	}
	v.Set(out)
	return true
}

func (d *decoder) mapping(l *loc, n *yaml.Node, v reflect.Value) bool {
	if n.Kind != yaml.MappingNode {
		d.at(l, n, "found %s; allowed is a mapping", describe(n))
		return false
	}
	out := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			continue // reported by structure
		}
		at := l.at(key.Value)
		if isNull(val) {
			d.at(at, val, `found null; remove the key or give it a value ("" is the empty string)`)
			continue
		}
		item := reflect.New(v.Type().Elem()).Elem()
		d.decode(at, val, item)
		out.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	}
	v.Set(out)
	return true
}

// object decodes a struct.
func (d *decoder) object(l *loc, n *yaml.Node, v reflect.Value) bool {
	if n.Kind != yaml.MappingNode {
		d.at(l, n, "found %s; allowed is a mapping with the fields %s", describe(n), fieldNames(d.fields(v.Type())))
		return false
	}
	fields := d.fields(v.Type())
	seen := make(map[string]bool, len(fields))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || seen[key.Value] {
			continue // reported by structure
		}
		seen[key.Value] = true
		f := fieldNamed(fields, key.Value)
		if f == nil {
			d.at(l.at(key.Value), key, "unknown field; %s", suggest(key.Value, fields))
			continue
		}
		d.field(l.at(f.name), val, f, v.FieldByIndex(f.index))
	}
	for _, f := range fields {
		if f.required && !seen[f.name] {
			d.at(l.at(f.name), n, "missing; this field is required")
		}
	}
	return true
}

// field decodes one field of a struct.
func (d *decoder) field(l *loc, n *yaml.Node, f *structField, v reflect.Value) {
	if isNull(n) {
		if f.required {
			d.at(l, n, "found null; this field is required")
		}
		return
	}
	before := len(d.errs)
	d.decode(l, n, v)
	switch {
	case len(d.errs) > before || refused(n):
	case v.Kind() == reflect.String && v.Len() == 0 && f.required, v.Kind() == reflect.Slice && v.Len() == 0 && f.required:
		d.at(l, n, "must not be empty")
	case v.Kind() == reflect.String && v.Len() == 0:
		d.at(l, n, "must not be empty; leave the field out")
	}
}

// refused is true for what structure has reported.
func refused(n *yaml.Node) bool {
	return n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}
