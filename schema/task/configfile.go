package task

import "github.com/gpuaas/node-agent/schema/strict"

// WriteConfigFile is runtime.write_config_file: a file with exactly this
// content. ${...} is replaced by the signer; nodes change nothing.
type WriteConfigFile struct {
	// Path on the node; it must be below one of the guard's roots.
	Path string `yaml:"path" json:"path"`
	// Mode in octal, quoted; default "0640".
	Mode string `yaml:"mode,omitempty" json:"mode,omitempty"`
	// Owner is a user's name or id; default the one that the agent runs as.
	Owner string `yaml:"owner,omitempty" json:"owner,omitempty"`
	// Group is a group's name or id; default the one that the agent runs as.
	Group string `yaml:"group,omitempty" json:"group,omitempty"`
	// Adopt takes over a file that exists and that the agent doesn't own.
	Adopt bool `yaml:"adopt,omitempty" json:"adopt,omitempty"`
	// Content of the file, not empty, without NUL.
	Content string `yaml:"content" json:"content"`
}

// Type implements Spec.
func (WriteConfigFile) Type() string { return "runtime.write_config_file" }

// Resources implements Spec.
func (w WriteConfigFile) Resources(id string) []Resource {
	return []Resource{File{
		Path: w.Path, Content: []byte(w.Content), Mode: parseMode(w.Mode),
		Owner: w.Owner, Group: w.Group, Adopt: w.Adopt, Source: id,
	}}
}

// Validate implements strict's hook.
func (w WriteConfigFile) Validate(c *strict.Context) {
	checkFile(c, w.Path, w.Mode, w.Owner, w.Group)
	check(c, "content", checkContent(w.Content))
}
