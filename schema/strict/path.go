package strict

import (
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// loc is the path of a value; nil is the document. It is a linked list so that
// decoding without errors builds no strings.
type loc struct {
	parent *loc
	key    string // of a mapping
	index  int    // in a list, when key is ""
	isKey  bool
}

func (l *loc) at(key string) *loc  { return &loc{parent: l, key: key, isKey: true} }
func (l *loc) item(index int) *loc { return &loc{parent: l, index: index} }

// plainKey is a key that needs no quotes in a path.
var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// String returns `tasks[0].with.env["A B"]`.
func (l *loc) String() string {
	if l == nil {
		return ""
	}
	parent := l.parent.String()
	if !l.isKey {
		return parent + "[" + strconv.Itoa(l.index) + "]"
	}
	return Key(parent, l.key)
}

// Key returns the path of a mapping's key below a path, quoted where it must be:
// Key("labels", "a.b") is `labels["a.b"]`.
func Key(path, key string) string {
	switch {
	case !plainKey.MatchString(key):
		return path + "[" + strconv.Quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// Index returns the path of a list's item below a path.
func Index(path string, index int) string {
	return path + "[" + strconv.Itoa(index) + "]"
}

// extend follows a relative path such as `tasks[0].with` from a node and a loc.
// It returns the loc of the whole path, and the deepest node that exists on it.
func extend(l *loc, n *yaml.Node, path string) (*loc, *yaml.Node) {
	missing := false
	for path != "" {
		var next *yaml.Node
		var key string
		switch {
		case strings.HasPrefix(path, `["`):
			quoted, err := strconv.QuotedPrefix(path[1:])
			if err != nil {
				return l, n
			}
			key, _ = strconv.Unquote(quoted)
			path = strings.TrimPrefix(path[1+len(quoted):], "]")
			l, next = l.at(key), value(n, key)
		case path[0] == '[':
			digits, rest, _ := strings.Cut(path[1:], "]")
			index, err := strconv.Atoi(digits)
			if err != nil {
				return l, n
			}
			path = rest
			l = l.item(index)
			if n.Kind == yaml.SequenceNode && index >= 0 && index < len(n.Content) {
				next = n.Content[index]
			}
		default:
			path = strings.TrimPrefix(path, ".")
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			key, path = path[:end], path[end:]
			l, next = l.at(key), value(n, key)
		}
		if next == nil {
			missing = true
		}
		if !missing {
			n = next
		}
	}
	return l, n
}

// value returns the value of a key of a mapping, or nil.
func value(n *yaml.Node, key string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// find returns the path of the node target at or below n.
func find(l *loc, n, target *yaml.Node) (*loc, bool) {
	if n == target {
		return l, true
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if found, ok := find(l.at(n.Content[i].Value), n.Content[i+1], target); ok {
				return found, true
			}
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			if found, ok := find(l.item(i), item, target); ok {
				return found, true
			}
		}
	}
	return nil, false
}
