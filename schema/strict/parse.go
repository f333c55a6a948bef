package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// parse returns the root of the only document, or nil after reporting why there is none.
func (d *decoder) parse(data []byte) *yaml.Node {
	if len(data) > MaxSize {
		d.add(nil, 1, 1, "the document has %d bytes; at most %d are allowed", len(data), MaxSize)
		return nil
	}
	text := bytes.TrimPrefix(data, []byte("\ufeff"))
	if !d.characters(text) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	doc, err := next(dec)
	switch {
	case errors.Is(err, io.EOF):
		d.add(nil, 1, 1, "the document is empty")
		return nil
	case err != nil:
		d.syntax(text, err)
		return nil
	}
	more, err := next(dec)
	switch {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(text, err)
		return nil
	default:
		d.at(nil, more, "a second document begins here; one file holds one document")
	}
	root := doc.Content[0]
	d.structure(root, nil, 1)
	return root
}

// next returns the next document. yaml.v3 panics on some malformed input,
// which is then an error like any other.
func next(dec *yaml.Decoder) (doc *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	doc = new(yaml.Node)
	if err := dec.Decode(doc); err != nil {
		return nil, err
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, io.EOF
	}
	return doc, nil
}

// characters refuses bytes that yaml.v3 would report without a position, and line
// separators by which YAML would count other lines than an editor.
func (d *decoder) characters(text []byte) bool {
	line, column := 1, 1
	for rest := text; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size <= 1:
			d.add(nil, line, column, "byte 0x%02x is not UTF-8", rest[0])
			return false
		case r == '\n':
			line, column = line+1, 0
		case r == '\r' && len(rest) > 1 && rest[1] == '\n', r == '\t':
		case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
			d.add(nil, line, column, `character U+%04X is not allowed here; write "\u%04X" in double quotes`, r, r)
			return false
		}
		column++
		rest = rest[size:]
	}
	return true
}

var (
	yamlLine      = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(?s:(.*))$`)
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	// parserErrors come from yaml.v3's parser, which counts lines from 0; the
	// scanner's count from 1.
	parserErrors = regexp.MustCompile(`^(did not find expected (<document start>|key|',' or '[]}]'|'-' indicator|node content|<stream-start>)|found (undefined tag handle|duplicate %|incompatible YAML))`)
)

// syntax reports an error of yaml.v3, which tells a line at most.
func (d *decoder) syntax(text []byte, err error) {
	match := yamlLine.FindStringSubmatch(err.Error())
	line, _ := strconv.Atoi(match[1])
	message := match[2]
	if line > 0 && parserErrors.MatchString(message) {
		line++
	}
	if m := unknownAnchor.FindStringSubmatch(message); m != nil {
		if before, _, ok := strings.Cut(string(text), "*"+m[1]); ok {
			line = 1 + strings.Count(before, "\n")
		}
		message = fmt.Sprintf("alias *%s is not allowed; write the value out", m[1])
	}
	lines := strings.Split(string(text), "\n")
	line = min(max(line, 1), len(lines))
	indent := len(lines[line-1]) - len(strings.TrimLeft(lines[line-1], " "))
	if strings.Contains(lines[line-1], "${") && strings.Contains(message, "expected ',' or") {
		message += "; inside { } and [ ] a value with ${...} needs quotes"
	}
	d.add(nil, line, indent+1, "this is not YAML: %s", message)
}

// structure reports what YAML has and this format has not.
func (d *decoder) structure(n *yaml.Node, l *loc, depth int) {
	if depth > MaxDepth {
		d.at(l, n, "nested deeper than %d levels", MaxDepth)
		n.Content = nil
		return
	}
	if n.Anchor != "" {
		d.at(l, n, "anchor &%s is not allowed; write the value out where it is used", n.Anchor)
	}
	if n.Style&yaml.TaggedStyle != 0 {
		d.at(l, n, "explicit tag %s is not allowed; remove it", n.Tag)
	}
	switch n.Kind {
	case yaml.AliasNode:
		d.at(l, n, "alias *%s is not allowed; write the value out", n.Value)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			d.structure(item, l.item(i), depth+1)
		}
	case yaml.MappingNode:
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, val := n.Content[i], n.Content[i+1]
			if !d.key(key, l) {
				continue
			}
			if first, ok := seen[key.Value]; ok {
				d.at(l.at(key.Value), key, "duplicate key; first on line %d", first)
				continue
			}
			seen[key.Value] = key.Line
			if val.Kind == yaml.ScalarNode && val.Value == "" && val.Style == 0 {
				// Nothing was written, so an error about it points at the key.
				val.Line, val.Column = key.Line, key.Column
			}
			d.structure(val, l.at(key.Value), depth+1)
		}
	}
}

// key checks a mapping's key.
func (d *decoder) key(key *yaml.Node, l *loc) bool {
	switch {
	case key.Anchor != "":
		d.at(l, key, "anchor &%s is not allowed", key.Anchor)
	case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
		d.at(l, key, "merge key << is not allowed; write the fields out")
	case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0:
		d.at(l, key, "found %s as a key; allowed is a string", describe(key))
	case len(key.Value) > MaxKey:
		d.at(l, key, "found a key of %d bytes; at most %d are allowed", len(key.Value), MaxKey)
	case key.ShortTag() != "!!str":
		d.at(l, key, "found %s as a key; write it in quotes", describe(key))
	default:
		return true
	}
	return false
}
