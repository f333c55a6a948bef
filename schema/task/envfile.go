package task

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/strict"
	"gopkg.in/yaml.v3"
)

// Limits of an environment file. MaxEnvValue is well below Linux's limit of
// 128 KiB for one string of a process's environment.
const (
	MaxEnv      = 1000
	MaxEnvValue = 64 << 10
)

// WriteEnvFile is runtime.write_env_file: variables for a unit's EnvironmentFile=.
type WriteEnvFile struct {
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
	// Env holds the variables by name.
	Env Env `yaml:"env" json:"env"`
}

// Env maps names of variables to their values. In YAML a value may be any
// scalar; its text counts, so 9100 and "9100" are the same.
type Env map[string]string

// DecodeNode implements strict's hook.
func (e *Env) DecodeNode(c *strict.Context, n *yaml.Node) {
	var raw map[string]*yaml.Node
	c.Decode(n, &raw)
	*e = make(Env, len(raw))
	for name, value := range raw {
		if value == nil {
			continue // null, which is reported already
		}
		if text, _, ok := c.Scalar(value); ok {
			(*e)[name] = text
		}
	}
}

// Validate implements strict's hook.
func (e Env) Validate(c *strict.Context) {
	if len(e) > MaxEnv {
		c.Errorf("", "found %d variables; at most %d are allowed", len(e), MaxEnv)
	}
	for _, name := range slices.Sorted(maps.Keys(e)) {
		if err := names.EnvName(name); err != nil {
			c.Errorf(strict.Key("", name), "name of a variable: %v", err)
		}
		value := e[name]
		if len(value) > MaxEnvValue {
			c.Errorf(strict.Key("", name), "found %d bytes; at most %d are allowed", len(value), MaxEnvValue)
		}
		if i := strings.IndexFunc(value, notEnv); i >= 0 {
			r, _ := utf8.DecodeRuneInString(value[i:])
			c.Errorf(strict.Key("", name), "found character U+%04X, which systemd takes in no variable", r)
		}
	}
}

// notEnv are the characters that a variable can't hold: NUL, and the code points
// that are no characters, for which systemd refuses the whole file.
func notEnv(r rune) bool {
	return r == 0 || r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe
}

// Type implements Spec.
func (WriteEnvFile) Type() string { return "runtime.write_env_file" }

// Resources implements Spec.
func (w WriteEnvFile) Resources(id string) []Resource {
	return []Resource{File{
		Path: w.Path, Content: w.Env.Render(id), Mode: parseMode(w.Mode),
		Owner: w.Owner, Group: w.Group, Adopt: w.Adopt, Source: id,
	}}
}

// Validate implements strict's hook.
func (w WriteEnvFile) Validate(c *strict.Context) {
	checkFile(c, w.Path, w.Mode, w.Owner, w.Group)
}

// Render returns the file that systemd's EnvironmentFile= reads back as exactly
// e, sorted by name, for the task with that id. See systemd.exec(5).
func (e Env) Render(id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by gpuaas-node-agent (task %s). Changes are overwritten.\n", id)
	for _, name := range slices.Sorted(maps.Keys(e)) {
		b.WriteString(name + "=" + quoteEnv(e[name]) + "\n")
	}
	return b.Bytes()
}

// plainEnv is what needs no quotes, for systemd, for a POSIX shell, and for people.
var plainEnv = regexp.MustCompile(`^[A-Za-z0-9_./:,@%+=-]+$`)

// envEscapes are the characters before which systemd, like a POSIX shell, takes
// a backslash away inside double quotes. All else, newlines too, stands for itself there.
var envEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)

func quoteEnv(value string) string {
	if plainEnv.MatchString(value) {
		return value
	}
	return `"` + envEscapes.Replace(value) + `"`
}
