package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

// inspection is what inspect prints.
type inspection struct {
	Branch string `json:"branch" yaml:"branch"`
	Commit string `json:"commit" yaml:"commit"`
	// Verified says whether nodes would take this state; Problem says why not.
	Verified        bool   `json:"verified" yaml:"verified"`
	Problem         string `json:"problem,omitempty" yaml:"problem,omitempty"`
	sign.Inspection `yaml:",inline"`
}

type inspectOptions struct {
	remote string
	format output
}

func newInspect(o *options) *cobra.Command {
	var opts inspectOptions
	c := &cobra.Command{
		Use:   "inspect",
		Short: "Show the signed branch: who can sign what, until when, and whether it verifies",
		Long: `Show the newest state of the signed branch that is here, or that of a remote: its roles,
who can sign them, when they expire, how many nodes have a manifest, and whether
nodes that were installed with trust/root.json would take it.`,
		RunE: func(c *cobra.Command, _ []string) error { return runInspect(c.Context(), o, opts) },
	}
	c.Flags().StringVar(&opts.remote, "remote", "", "name or URL of a remote to look at")
	opts.format.register(c, "table", "json", "yaml")
	return c
}

func runInspect(ctx context.Context, o *options, opts inspectOptions) error {
	dir, err := o.fleetDir()
	if err != nil {
		return err
	}
	branch, err := signedBranch(dir)
	if err != nil {
		return err
	}
	root, err := bootstrapRoot(dir)
	if err != nil {
		return err
	}
	git, err := publish.Open(dir)
	if err != nil {
		return err
	}
	commit, err := signedCommit(ctx, git, branch, opts.remote)
	if err != nil {
		return err
	}
	tree, err := git.Tree(commit)
	if err != nil {
		return err
	}
	out := inspection{Branch: branch, Commit: commit, Verified: true}
	if out.Inspection, err = sign.Inspect(tree); err != nil {
		return fmt.Errorf("cannot read the signed state of %s: %w", short(commit), err)
	}
	_, verr := verifyBranch(o, git, root, commit, "")
	if verr != nil {
		out.Verified, out.Problem = false, verr.Error()
	}
	if err := opts.format.print(o.stdout, out, out.table(o.now())); err != nil {
		return err
	}
	if verr != nil {
		return verifyError("nodes would refuse this state", verr)
	}
	return nil
}

// signedCommit is the newest state of the signed branch that is here or, with a remote, there.
func signedCommit(ctx context.Context, git *publish.Repository, branch, remote string) (commit string, err error) {
	if remote != "" {
		commit, err = git.Fetch(ctx, remote, branch)
	} else {
		commit, err = published(git, branch)
	}
	if err == nil && commit == "" {
		err = fmt.Errorf("there is no branch %s: gpuaas-signer init makes it, sign and publish bring it to a remote", branch)
	}
	return commit, err
}

func (i inspection) table(now time.Time) func(io.Writer) error {
	return func(w io.Writer) error {
		fmt.Fprintf(w, "%s at %s: %s\n\n", i.Branch, i.Commit, plural(i.Manifests, "manifest"))
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "ROLE\tVERSION\tEXPIRES\tKEYS\tSIGNS")
		for _, r := range i.Roles {
			ids := make([]string, len(r.KeyIDs))
			for n, id := range r.KeyIDs {
				ids[n] = id[:min(len(id), 8)]
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%d of %s\t%s\n", r.Name, r.Version, until(now, r.Expires), r.Threshold, strings.Join(ids, ","), r.Signs)
		}
		return t.Flush()
	}
}

// until says when something expires, as people think of it.
func until(now, when time.Time) string {
	left := when.Sub(now)
	date := when.UTC().Format(time.DateOnly)
	switch {
	case left < 0:
		return date + " (EXPIRED)"
	case left < 48*time.Hour:
		return fmt.Sprintf("%s (in %s)", date, left.Truncate(time.Minute))
	}
	return fmt.Sprintf("%s (in %d days)", date, int(left.Hours()/24))
}
