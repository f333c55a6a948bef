package v1

import (
	"strings"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	"gopkg.in/yaml.v3"
)

// TaskTemplate is a task of a profile or node before interpolation. With keeps
// its positions, so that an error in a rendered value points at the line that
// somebody wrote.
type TaskTemplate struct {
	// ID is unique in the node's manifest; other tasks refer to it.
	ID string `yaml:"id" json:"id"`
	// Type is one of task.Kinds.
	Type string `yaml:"type" json:"type"`
	// With holds the fields of that kind. Any scalar in it may hold ${...}.
	With *yaml.Node `yaml:"with" json:"with"`
}

// Validate implements strict's hook: the fields of With must be those of the
// kind, and values without ${...} must be right already.
func (t TaskTemplate) Validate(c *strict.Context) {
	spec := checkTask(c, t.ID, t.Type)
	if spec == nil || t.With == nil {
		return
	}
	c.DecodeTemplate(t.With, spec, HasPlaceholder)
}

// HasPlaceholder reports whether a node is a scalar with a ${...} in it.
func HasPlaceholder(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "${")
}

// checkTask checks what every task has, and returns an empty Spec of its kind, or nil.
func checkTask(c *strict.Context, id, kind string) task.Spec {
	check(c, "id", names.TaskID(id))
	spec, ok := task.New(kind)
	if !ok {
		c.Errorf("type", "%v", task.UnknownType(kind))
		return nil
	}
	return spec
}

// check reports an error of the names package at a field.
func check(c *strict.Context, field string, err error) {
	if err != nil {
		c.Errorf(field, "%v", err)
	}
}
