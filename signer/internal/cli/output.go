package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"
)

// output is the -o flag.
type output struct {
	format string
	known  []string
}

// register adds the flag; the first format is the default.
func (f *output) register(c *cobra.Command, formats ...string) {
	f.format, f.known = formats[0], formats
	c.Flags().VarP(f, "output", "o", "output format: "+strings.Join(formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

// String implements pflag.Value.
func (f *output) String() string { return f.format }

// Type implements pflag.Value.
func (f *output) Type() string { return "format" }

// Set implements pflag.Value.
func (f *output) Set(s string) error {
	if !slices.Contains(f.known, s) {
		return fmt.Errorf("allowed: %s", strings.Join(f.known, ", "))
	}
	f.format = s
	return nil
}

// print writes v in the format, or calls table.
func (f *output) print(w io.Writer, v any, table func(io.Writer) error) error {
	switch f.format {
	case "json":
		return printJSON(w, v)
	case "yaml":
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		return e.Encode(v)
	}
	return table(w)
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// progress shows how far something is, on a terminal only.
func (o *options) progress(what string) (report func(done, total int64), finish func()) {
	if !terminal(o.stderr) {
		return nil, func() {}
	}
	shown := int64(-1)
	report = func(done, total int64) {
		if total <= 0 {
			return
		}
		if percent := done * 100 / total; percent != shown {
			shown = percent
			fmt.Fprintf(o.stderr, "\r%s %3d%%", what, percent)
		}
	}
	return report, func() {
		if shown >= 0 {
			fmt.Fprint(o.stderr, "\r\x1b[K")
		}
	}
}
