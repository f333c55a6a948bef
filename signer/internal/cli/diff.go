package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/signer/internal/render"
)

func newDiff(o *options) *cobra.Command {
	var base string
	c := &cobra.Command{
		Use:   "diff",
		Short: "Show what would change on which node",
		Long: `Show what would change on which node if the fleet repo as it is here were published:
a unified diff of each manifest that differs from the signed branch's, without
generation and source. Works offline: it compares with the newest state of the
signed branch that this clone has, local or fetched.`,
		RunE: func(*cobra.Command, []string) error { return runDiff(o, base) },
	}
	c.Flags().StringVar(&base, "base", "", "revision of the signed branch to compare with (default: the newest here)")
	return c
}

func runDiff(o *options, base string) error {
	r, err := o.load()
	if err != nil {
		return err
	}
	git, err := publish.Open(r.dir)
	if err != nil {
		return err
	}
	commit, err := diffBase(git, r.fleet.Signed.Branch, base)
	if err != nil {
		return err
	}
	tree, err := git.Tree(commit)
	if err != nil {
		return err
	}
	before, err := signedManifests(tree)
	if err != nil {
		return err
	}
	changes, err := compare(r, before)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(o.stdout)
	counts := map[string]int{}
	for _, c := range changes {
		counts[c.kind()]++
		if err := c.print(w, o.colour()); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	o.say("%s: %d changed, %d new, %d removed (compared with %s)", plural(len(changes), "node"),
		counts["changed"], counts["new"], counts["removed"], short(commit))
	if len(changes) > 0 {
		return exitcode.Silent(exitcode.Pending)
	}
	return nil
}

func diffBase(git *publish.Repository, branch, base string) (string, error) {
	if base != "" {
		return git.Resolve(base)
	}
	commit, err := published(git, branch)
	if err != nil {
		return "", err
	}
	if commit == "" {
		return "", fmt.Errorf("there is no branch %s here to compare with: fetch it (git fetch %s %s:refs/remotes/%s/%s), or name another revision with --base",
			branch, defaultRemote, branch, defaultRemote, branch)
	}
	return commit, nil
}

// change is a node whose content differs.
type change struct {
	node          string
	target        string
	before, after []byte // content; nil where there is none
}

func (c change) kind() string {
	switch {
	case c.before == nil:
		return "new"
	case c.after == nil:
		return "removed"
	}
	return "changed"
}

// compare returns the nodes whose content differs between what is published, by target
// path, and what is rendered, sorted by node.
func compare(r *repo, before map[string][]byte) ([]change, error) {
	changes := make([]*change, len(r.fleet.Nodes)) // nil: as published
	err := r.eachNode(func(i int, target string, m v1.NodeManifest) error {
		after, err := render.Content(m)
		if err != nil {
			return err
		}
		prev, published := before[target]
		if published && render.Same(prev, after) {
			return nil
		}
		changes[i] = &change{node: m.Node, target: target, after: after}
		if published {
			changes[i].before = render.Unstamp(prev)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []change
	left := maps.Clone(before)
	for i, n := range r.fleet.Nodes {
		delete(left, trust.TargetPath(n.TeamOf(), n.ID))
		if changes[i] != nil {
			out = append(out, *changes[i])
		}
	}
	for target, prev := range left {
		_, node, err := trust.ParseTargetPath(target)
		if err != nil {
			return nil, err
		}
		out = append(out, change{node: node, target: target, before: render.Unstamp(prev)})
	}
	slices.SortFunc(out, func(a, b change) int { return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.target, b.target)) })
	return out, nil
}

const (
	bold  = "\x1b[1m"
	red   = "\x1b[31m"
	green = "\x1b[32m"
	cyan  = "\x1b[36m"
	reset = "\x1b[0m"
)

// print writes the unified diff.
func (c change) print(w io.Writer, colour bool) error {
	from, to := "a/"+c.target, "b/"+c.target
	if c.before == nil {
		from = "/dev/null"
	}
	if c.after == nil {
		to = "/dev/null"
	}
	// The first line is the tool's own header; git and forges know this one.
	_, text, ok := bytes.Cut(diff.Diff(from, c.before, to, c.after), []byte("\n"))
	if !ok {
		return errors.New("cannot compare manifests that are equal")
	}
	header := fmt.Sprintf("diff --git a/%s b/%s\n", c.target, c.target)
	if !colour {
		_, err := w.Write(append([]byte(header), text...))
		return err
	}
	fmt.Fprint(w, bold+header+reset)
	for line := range bytes.Lines(text) {
		code := ""
		switch {
		case bytes.HasPrefix(line, []byte("+++ ")), bytes.HasPrefix(line, []byte("--- ")):
			code = bold
		case line[0] == '+':
			code = green
		case line[0] == '-':
			code = red
		case line[0] == '@':
			code = cyan
		}
		if code == "" {
			if _, err := w.Write(line); err != nil {
				return err
			}
			continue
		}
		if _, err := fmt.Fprintf(w, "%s%s%s\n", code, bytes.TrimSuffix(line, []byte("\n")), reset); err != nil {
			return err
		}
	}
	return nil
}

// short abbreviates a commit for people.
func short(commit string) string {
	if commit == "" {
		return "nothing"
	}
	return commit[:min(len(commit), 12)]
}
