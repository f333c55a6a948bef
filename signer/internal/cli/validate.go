package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newValidate(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the fleet repo: every file, and every node's manifest",
		Long: `Check the fleet repo: every file, and the manifest of every node. Everything that is
wrong is reported at once, one line each: file:line:column, the field, what was
found, what is allowed. Works offline, without keys.`,
		RunE: func(*cobra.Command, []string) error { return runValidate(o) },
	}
}

func runValidate(o *options) error {
	r, err := o.load()
	if err != nil {
		return err
	}
	for _, p := range r.notPinned() {
		o.say("%s: warning: package %s is not pinned yet: push it with --pin %s; until then sign refuses", p.File, p.Name, p.File)
	}
	for _, p := range r.idle() {
		o.say("%s: warning: no node has the labels of profile %s", p.File, p.Name)
	}
	_, err = fmt.Fprintf(o.stdout, "%s (%s): %s, %s and %s are good\n", r.fleet.Name, r.fleet.Environment,
		plural(len(r.fleet.Nodes), "node"), plural(len(r.fleet.Profiles), "profile"), plural(len(r.fleet.Packages), "package"))
	return err
}
