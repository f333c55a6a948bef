package v1

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
)

// EncodeYAML returns the status as YAML that DecodeStatus reads.
func (s NodeStatus) EncodeYAML() ([]byte, error) {
	data, err := strict.Encode(s)
	if err != nil {
		return nil, fmt.Errorf("cannot encode the status of %q: %w", s.Node, err)
	}
	return data, nil
}

// EncodeJSON returns the status as one indented JSON document that DecodeStatus
// reads as well. Text that is not UTF-8 has U+FFFD in its place.
func (s NodeStatus) EncodeJSON() ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("cannot encode the status of %q: %w", s.Node, err)
	}
	return append(asciiControls(data), '\n'), nil
}

// asciiControls escapes the characters that JSON allows in strings as they are
// and YAML, and many terminals, do not.
func asciiControls(data []byte) []byte {
	if !bytes.ContainsFunc(data, escaped) {
		return data
	}
	var b strings.Builder
	for _, r := range string(data) {
		if escaped(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return []byte(b.String())
}

func escaped(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0xfffe || r == 0xffff
}

// Condition returns the condition of that type, or nil.
func (s *NodeStatus) Condition(t ConditionType) *Condition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == t {
			return &s.Conditions[i]
		}
	}
	return nil
}

// Validate implements strict's hook.
func (s *NodeStatus) Validate(c *strict.Context) {
	check(c, "node", names.NodeID(s.Node))
	if s.DesiredGeneration < 0 {
		c.Errorf("desiredGeneration", "found %d; allowed is 0 and above", s.DesiredGeneration)
	}
	if s.ObservedGeneration < 0 {
		c.Errorf("observedGeneration", "found %d; allowed is 0 and above", s.ObservedGeneration)
	}
	oneOf(c, "phase", s.Phase, Phases())
	unique(c, "conditions", s.Conditions, "type", func(c Condition) string { return string(c.Type) })
}

// Validate implements strict's hook.
func (d Condition) Validate(c *strict.Context) {
	oneOf(c, "type", d.Type, ConditionTypes())
	oneOf(c, "status", d.Status, ConditionStatuses())
	oneOf(c, "reason", d.Reason, Reasons())
}

// Validate implements strict's hook.
func (e ElementStatus) Validate(c *strict.Context) {
	oneOf(c, "state", e.State, ElementStates())
	if e.Digest != "" {
		check(c, "digest", names.Digest(e.Digest))
	}
}

// Validate implements strict's hook.
func (e StatusError) Validate(c *strict.Context) {
	oneOf(c, "category", e.Category, Reasons())
}

// oneOf reports a value that isn't in a closed set.
func oneOf[T ~string](c *strict.Context, field string, found T, allowed []T) {
	if slices.Contains(allowed, found) {
		return
	}
	list := make([]string, len(allowed))
	for i, a := range allowed {
		list[i] = string(a)
	}
	c.Errorf(field, "found %q; allowed are %s", string(found), strings.Join(list, ", "))
}
