package v1

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	"gopkg.in/yaml.v3"
)

// MaxValue is the most bytes of one Value.
const MaxValue = 64 << 10

// Values are the source of ${values.x}: scalars by name.
type Values map[string]Value

// Value is one scalar: a string, an integer, a float or a boolean, kept as written.
type Value struct {
	// Text is the scalar's text without quotes.
	Text string
	// Tag is YAML's: !!str, !!int, !!float or !!bool.
	Tag string
}

// Duration is a length of time, written like "90s", "6h" or "90d".
type Duration = task.Duration

// DecodeNode implements strict's hook.
func (v *Value) DecodeNode(c *strict.Context, n *yaml.Node) {
	text, tag, ok := c.Scalar(n)
	switch {
	case !ok:
	case tag == "!!timestamp":
		c.Errorf("", "found date %s; write it in quotes", text)
	case len(text) > MaxValue:
		c.Errorf("", "found %d bytes; at most %d are allowed", len(text), MaxValue)
	default:
		*v = Value{Text: text, Tag: tag}
	}
}

// MarshalYAML implements yaml.Marshaler.
func (v Value) MarshalYAML() (any, error) {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: v.Tag, Value: v.Text}
	if v.Tag == "!!str" {
		n.SetString(v.Text)
	}
	return n, nil
}

// MarshalJSON implements json.Marshaler. A number that JSON can't write as it
// stands becomes a string.
func (v Value) MarshalJSON() ([]byte, error) {
	switch v.Tag {
	case "!!bool":
		return strconv.AppendBool(nil, v.Text[0] == 't' || v.Text[0] == 'T'), nil
	case "!!int", "!!float":
		if json.Valid([]byte(v.Text)) {
			return []byte(v.Text), nil
		}
	}
	return json.Marshal(v.Text)
}

// Validate implements strict's hook.
func (vs Values) Validate(c *strict.Context) {
	for _, name := range slices.Sorted(maps.Keys(vs)) {
		if err := names.ValueName(name); err != nil {
			c.Errorf(strict.Key("", name), "name of a value: %v", err)
		}
	}
}
