package v1

import (
	"time"

	"gopkg.in/yaml.v3"
)

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
type Duration time.Duration

// TaskTemplate is a task of a profile or node before interpolation. With keeps
// its positions, so that an error in a rendered value points at the line that
// somebody wrote.
type TaskTemplate struct {
	ID   string     `yaml:"id" json:"id"`
	Type string     `yaml:"type" json:"type"`
	With *yaml.Node `yaml:"with" json:"with"`
}
