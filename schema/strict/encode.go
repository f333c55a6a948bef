package strict

import (
	"bytes"
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Encode returns v, a struct or a pointer to one, as the YAML that Decode reads
// back as v. The form is canonical, so equal values have equal bytes, whatever
// version of whatever library is around: two spaces, fields in the order of the
// struct, maps sorted by key, strings plain where that is safe, as a literal block
// where they have lines, and else in double quotes.
// Fields follow their `yaml` tags; omitempty leaves zero values out. A string
// that is not UTF-8 is an error, as Decode could not read it.
func Encode(v any) ([]byte, error) {
	e := encoder{d: newDecoder("")}
	e.object("", 0, reflect.Indirect(reflect.ValueOf(v)))
	if e.err != nil {
		return nil, e.err
	}
	if e.out.Len() > MaxSize {
		return nil, fmt.Errorf("the document has %d bytes; at most %d are allowed", e.out.Len(), MaxSize)
	}
	return e.out.Bytes(), nil
}

// encoder writes one document. Its methods write a value after its "key:" or
// "-", at a depth of that many spaces, and end with a newline.
type encoder struct {
	d   *decoder // for the fields of structs
	out bytes.Buffer
	err error
}

func (e *encoder) fail(field, format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("cannot encode %s: %s", field, fmt.Sprintf(format, args...))
	}
}

func (e *encoder) indent(depth int) {
	for range depth {
		e.out.WriteByte(' ')
	}
}

// object writes the fields of a struct. The first one goes where the cursor is.
func (e *encoder) object(field string, depth int, v reflect.Value) {
	first := true
	for _, f := range e.d.fields(v.Type()) {
		value := v.FieldByIndex(f.index)
		if f.omitEmpty && (value.IsZero() || (value.Kind() == reflect.Map || value.Kind() == reflect.Slice) && value.Len() == 0) {
			continue
		}
		if !first {
			e.indent(depth)
		}
		first = false
		e.out.WriteString(f.name + ":")
		e.value(Key(field, f.name), depth, value)
	}
	if first {
		e.out.WriteString("{}\n")
	}
}

// value writes any value.
func (e *encoder) value(field string, depth int, v reflect.Value) {
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			e.fail(field, "it is nil")
			return
		}
		v = v.Elem()
	}
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := text.MarshalText()
		if err != nil {
			e.fail(field, "%v", err)
		}
		e.text(field, depth, string(b))
		return
	}
	switch v.Kind() {
	case reflect.String:
		e.text(field, depth, v.String())
	case reflect.Bool:
		e.out.WriteString(" " + strconv.FormatBool(v.Bool()) + "\n")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out.WriteString(" " + strconv.FormatInt(v.Int(), 10) + "\n")
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out.WriteString(" " + strconv.FormatUint(v.Uint(), 10) + "\n")
	case reflect.Struct:
		if e.nested(v) {
			e.out.WriteByte('\n')
			e.indent(depth + 2)
		} else {
			e.out.WriteByte(' ')
		}
		e.object(field, depth+2, v)
	case reflect.Map:
		e.mapping(field, depth, v)
	case reflect.Slice:
		e.list(field, depth, v)
	default:
		e.fail(field, "its type is %s", v.Type())
	}
}

// nested reports whether a struct has anything to write.
func (e *encoder) nested(v reflect.Value) bool {
	return slices.ContainsFunc(e.d.fields(v.Type()), func(f structField) bool {
		return !f.omitEmpty || !v.FieldByIndex(f.index).IsZero()
	})
}

func (e *encoder) mapping(field string, depth int, v reflect.Value) {
	if v.Len() == 0 {
		e.out.WriteString(" {}\n")
		return
	}
	items := make(map[string]reflect.Value, v.Len())
	for iter := v.MapRange(); iter.Next(); {
		items[iter.Key().String()] = iter.Value()
	}
	e.out.WriteByte('\n')
	for _, key := range slices.Sorted(maps.Keys(items)) {
		at := Key(field, key)
		if !utf8.ValidString(key) {
			e.fail(at, "its name is not UTF-8")
		}
		written := inline(key)
		if len(key) > MaxKey || len(written) > 2*MaxKey-2 {
			e.fail(field, "a name in it has %d bytes, or characters that need escapes; at most %d are allowed", len(key), MaxKey)
		}
		e.indent(depth + 2)
		e.out.WriteString(written + ":")
		e.value(at, depth+2, items[key])
	}
}

func (e *encoder) list(field string, depth int, v reflect.Value) {
	if v.Len() == 0 {
		e.out.WriteString(" []\n")
		return
	}
	e.out.WriteByte('\n')
	for i := range v.Len() {
		item := v.Index(i)
		for item.Kind() == reflect.Pointer && !item.IsNil() {
			item = item.Elem()
		}
		e.indent(depth + 2)
		e.out.WriteString("-")
		if _, text := item.Interface().(encoding.TextMarshaler); item.Kind() == reflect.Struct && !text {
			e.out.WriteByte(' ')
			e.object(Index(field, i), depth+4, item)
			continue
		}
		e.value(Index(field, i), depth+2, item)
	}
}

// text writes a string.
func (e *encoder) text(field string, depth int, s string) {
	if !utf8.ValidString(s) {
		e.fail(field, "it is not UTF-8")
		return
	}
	if !literal(s) {
		e.out.WriteString(" " + inline(s) + "\n")
		return
	}
	body, end := strings.CutSuffix(s, "\n")
	if end {
		e.out.WriteString(" |\n")
	} else {
		e.out.WriteString(" |-\n")
	}
	for line := range strings.SplitSeq(body, "\n") {
		if line != "" {
			e.indent(depth + 2)
			e.out.WriteString(line)
		}
		e.out.WriteByte('\n')
	}
}

// literal reports whether a string can be, and is better, written as a block.
func literal(s string) bool {
	body := strings.TrimSuffix(s, "\n")
	return strings.Contains(s, "\n") && body != "" && !strings.HasSuffix(body, "\n") && !strings.ContainsRune(" \t\n", rune(body[0])) &&
		!strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && r != '\t' && unprintable(r) })
}

// unprintable are the characters that Decode takes only as escapes.
func unprintable(r rune) bool {
	return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff
}

// reserved are words that some YAML parser takes for something else than a string.
var reserved = []string{"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"}

// plain reports whether no YAML parser, of version 1.1 or 1.2, takes s without
// quotes for anything but a string.
func plain(s string) bool {
	if s == "" || len(s) > 512 || s[0] != '/' && !letter(s[0]) || s[len(s)-1] == ':' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !letter(c) && (c < '0' || c > '9') && strings.IndexByte("_./@+=~,:-", c) < 0 {
			return false
		}
	}
	return len(s) > 5 || !slices.Contains(reserved, strings.ToLower(s))
}

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// inline returns a string on one line.
func inline(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case unprintable(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
