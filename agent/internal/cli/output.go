package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/gpuaas/node-agent/internal/exitcode"
)

// output is the -o flag: table, json or yaml.
type output string

var outputs = []string{"table", "json", "yaml"}

func (f *output) register(c *cobra.Command) {
	*f = "table"
	c.Flags().VarP(f, "output", "o", "output format: "+strings.Join(outputs, ", "))
}

// String implements pflag.Value.
func (f *output) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *output) Type() string { return "format" }

// Set implements pflag.Value.
func (f *output) Set(s string) error {
	for _, known := range outputs {
		if s == known {
			*f = output(s)
			return nil
		}
	}
	return fmt.Errorf("allowed: %s", strings.Join(outputs, ", "))
}

// print writes v in the format, or calls table.
func (f output) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch f {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case "yaml":
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return e.Encode(v)
	}
	return table(w)
}

// silent ends a command that has printed everything with a code.
func silent(code int) error { return exitcode.Silent(code) }
