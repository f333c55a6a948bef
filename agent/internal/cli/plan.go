package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/agent/internal/loop"
	"github.com/gpuaas/node-agent/internal/exitcode"
)

func newPlan(o *options) *cobra.Command {
	var format output
	var offline bool
	c := &cobra.Command{
		Use:   "plan",
		Short: "Show what a reconcile would change, and why; change nothing",
		Long: `Fetch and verify the signed branch, look at this host, and print the steps that a
reconcile would take, each with its reason. Touches nothing, and can be used while
an agent runs.

` + exitcode.Help,
		RunE: func(c *cobra.Command, _ []string) error { return runPlan(c.Context(), o, format, offline) },
	}
	format.register(c)
	c.Flags().BoolVar(&offline, "offline", false, "plan with what was verified last, without asking the source")
	return c
}

// planView is what plan prints as JSON or YAML.
type planView struct {
	Commit     string      `json:"commit" yaml:"commit"`
	Generation int64       `json:"generation" yaml:"generation"`
	Manifest   string      `json:"manifest" yaml:"manifest"`
	Held       string      `json:"held,omitempty" yaml:"held,omitempty"`
	Steps      []stepView  `json:"steps" yaml:"steps"`
	Conflicts  []issueView `json:"conflicts,omitempty" yaml:"conflicts,omitempty"`
	Notices    []issueView `json:"notices,omitempty" yaml:"notices,omitempty"`
}

type stepView struct {
	Action   string `json:"action" yaml:"action"`
	Resource string `json:"resource,omitempty" yaml:"resource,omitempty"`
	Task     string `json:"task,omitempty" yaml:"task,omitempty"`
	Reason   string `json:"reason" yaml:"reason"`
	Drift    bool   `json:"drift,omitempty" yaml:"drift,omitempty"`
}

type issueView struct {
	Resource string `json:"resource" yaml:"resource"`
	Task     string `json:"task,omitempty" yaml:"task,omitempty"`
	Message  string `json:"message" yaml:"message"`
}

func runPlan(ctx context.Context, o *options, format output, offline bool) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	a, err := newViewer(cfg, o.logger(cfg.Log))
	if err != nil {
		return err
	}
	defer a.close()
	p, planErr := a.loop.Preview(ctx, offline)
	if p.Verified.IsZero() {
		return verifyError(planErr)
	}
	view := viewPlan(p)
	if err := format.print(o.stdout, view, func(w io.Writer) error { return printPlan(w, view, planErr != nil) }); err != nil {
		return err
	}
	switch {
	case planErr != nil:
		return verifyError(planErr)
	case p.Hold != nil:
		return silent(exitcode.Older)
	case len(p.Plan.Steps) > 0:
		return silent(exitcode.Pending)
	}
	return nil
}

func viewPlan(p loop.Preview) planView {
	v := planView{Commit: p.Commit, Generation: p.Verified.Manifest().Generation, Manifest: p.Verified.Digest(), Steps: []stepView{}}
	if p.Hold != nil {
		v.Held = p.Hold.Error.Message
	}
	for _, s := range p.Plan.Steps {
		v.Steps = append(v.Steps, stepView{s.Action.String(), s.Ref, s.Task, s.Reason, s.Drift})
	}
	for _, c := range p.Plan.Conflicts {
		v.Conflicts = append(v.Conflicts, issueView{c.Ref, c.Task, c.Message})
	}
	for _, n := range p.Plan.Notices {
		v.Notices = append(v.Notices, issueView{n.Ref, n.Task, n.Message})
	}
	return v
}

// printPlan prints a plan, or what there is of one that can't be carried out.
func printPlan(w io.Writer, v planView, refused bool) error {
	fmt.Fprintf(w, "Commit %s, generation %d, manifest %s\n", v.Commit, v.Generation, v.Manifest)
	if v.Held != "" {
		fmt.Fprintf(w, "This manifest failed before and is held until another one comes: %s\n", v.Held)
	}
	switch {
	case refused:
		fmt.Fprintln(w, "This manifest can't be applied here; this host stays as it is.")
	case len(v.Steps) == 0:
		fmt.Fprintln(w, "Nothing to do: this host is as its manifest says.")
	}
	if len(v.Steps) > 0 {
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintf(tw, "\nSTEP\tRESOURCE\tTASK\tWHY\n")
		for _, s := range v.Steps {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", s.Action, s.Resource, s.Task, s.Reason)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	for _, c := range v.Conflicts {
		fmt.Fprintf(w, "\nConflict: %s: %s\n", c.Resource, c.Message)
	}
	for _, n := range v.Notices {
		fmt.Fprintf(w, "\nNotice: %s: %s\n", n.Resource, n.Message)
	}
	return nil
}
