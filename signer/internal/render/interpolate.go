package render

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Placeholders are written ${name}. The names are
//
//	values.<name>           a value of the fleet, a profile or the node
//	node.id                 the node's id
//	packages.<name>.path    where the package is on the node: <installRoot>/<name>/current
//
// and nothing else. $${ is a ${ that stays. A scalar that is one placeholder
// and is not quoted takes the type of the value: port: ${values.port}; every
// other scalar with a placeholder is a string.

const (
	nodeID        = "node.id"
	valuesPrefix  = "values."
	packagePrefix = "packages."
	packageSuffix = ".path"

	strTag = "!!str"
)

// segment is literal text, or the name in a placeholder.
type segment struct {
	text        string
	placeholder bool
}

// split cuts a scalar at its placeholders.
func split(s string) ([]segment, error) {
	var out []segment
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			out = append(out, segment{text: text.String()})
			text.Reset()
		}
	}
	for s != "" {
		literal, rest, found := strings.Cut(s, "$")
		text.WriteString(literal)
		if !found {
			break
		}
		switch {
		case strings.HasPrefix(rest, "${"):
			text.WriteString("${")
			s = rest[len("${"):]
		case strings.HasPrefix(rest, "{"):
			name, after, closed := strings.Cut(rest[len("{"):], "}")
			if !closed {
				return nil, fmt.Errorf("found %q without its }; write $${ for a ${ that should stay", "$"+shorten(rest))
			}
			flush()
			out = append(out, segment{text: name, placeholder: true})
			s = after
		default:
			text.WriteByte('$')
			s = rest
		}
	}
	flush()
	return out, nil
}

func shorten(s string) string {
	const enough = 40
	if r := []rune(s); len(r) > enough {
		return string(r[:enough]) + "…"
	}
	return s
}

// checkName refuses names that no fleet can give a meaning.
func checkName(name string) error {
	switch {
	case name == nodeID, strings.HasPrefix(name, valuesPrefix) && name != valuesPrefix:
		return nil
	case strings.HasPrefix(name, packagePrefix):
		if p, ok := packageOf(name); !ok || p == "" {
			return fmt.Errorf("found ${%s}; of a package there is ${packages.<name>.path} only", shorten(name))
		}
		return nil
	}
	return fmt.Errorf("found ${%s}; allowed are ${values.<name>}, ${node.id} and ${packages.<name>.path}; write $${ for a ${ that should stay", shorten(name))
}

// packageOf returns the name in packages.<name>.path.
func packageOf(name string) (string, bool) {
	return strings.CutSuffix(strings.TrimPrefix(name, packagePrefix), packageSuffix)
}

// scope is what placeholders can name for one node.
type scope struct {
	node        string
	values      v1.Values
	packages    []string // sorted
	installRoot string
}

// lookup returns what a name, which checkName accepted, stands for.
func (s *scope) lookup(name string) (v1.Value, error) {
	if name == nodeID {
		return v1.Value{Text: s.node, Tag: strTag}, nil
	}
	if v, ok := strings.CutPrefix(name, valuesPrefix); ok {
		if value, ok := s.values[v]; ok {
			return value, nil
		}
		return v1.Value{}, fmt.Errorf("no value %q; fleet, profiles and node have %s", v, enumerate(sortedKeys(s.values)))
	}
	p, _ := packageOf(name)
	if !slices.Contains(s.packages, p) {
		return v1.Value{}, fmt.Errorf("package %q is not one of the node's, which are %s; add it to packages of the profile or the node",
			p, enumerate(s.packages))
	}
	return v1.Value{Text: s.installRoot + "/" + p + "/current", Tag: strTag}, nil
}

// enumerate lists names for a message.
func enumerate(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// interpolate returns a copy of the tree with placeholders replaced.
// Positions stay those of the template.
func interpolate(n *yaml.Node, found map[string]v1.Value) *yaml.Node {
	out := *n
	if v1.HasPlaceholder(n) {
		out.Value, out.Tag = interpolateScalar(n, found)
		return &out
	}
	out.Content = make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			out.Content[i] = c // keys are no values
			continue
		}
		out.Content[i] = interpolate(c, found)
	}
	return &out
}

func interpolateScalar(n *yaml.Node, found map[string]v1.Value) (text, tag string) {
	segments, _ := split(n.Value)
	if len(segments) == 1 && segments[0].placeholder && n.Style == 0 {
		v := found[segments[0].text]
		return v.Text, v.Tag
	}
	var b strings.Builder
	for _, s := range segments {
		if s.placeholder {
			b.WriteString(found[s.text].Text)
		} else {
			b.WriteString(s.text)
		}
	}
	return b.String(), strTag
}
