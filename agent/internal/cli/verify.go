package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func newVerify(o *options) *cobra.Command {
	var format output
	var offline bool
	c := &cobra.Command{
		Use:   "verify",
		Short: "Verify the signed branch for this node, and show what is believed",
		Long: `Fetch the signed branch and verify it from this node's bootstrap root, as run
does, and print what was found: versions, expiries, key ids, the manifest's
digest. Keeps nothing, and can be used while an agent runs.

` + exitcode.Help,
		RunE: func(c *cobra.Command, _ []string) error { return runVerify(c.Context(), o, format, offline) },
	}
	format.register(c)
	c.Flags().BoolVar(&offline, "offline", false, "verify what is stored, without asking the source")
	return c
}

// verifyView is what verify prints as JSON or YAML.
type verifyView struct {
	Commit     string         `json:"commit" yaml:"commit"`
	Node       string         `json:"node" yaml:"node"`
	Generation int64          `json:"generation" yaml:"generation"`
	Manifest   string         `json:"manifest" yaml:"manifest"`
	Trust      v1.TrustStatus `json:"trust" yaml:"trust"`
}

func runVerify(ctx context.Context, o *options, format output, offline bool) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	a, err := newViewer(cfg, o.logger(cfg.Log))
	if err != nil {
		return err
	}
	defer a.close()
	verified, commit, err := a.loop.Check(ctx, offline)
	if err != nil {
		return verifyError(err)
	}
	v := verifyView{commit, cfg.Node, verified.Manifest().Generation, verified.Digest(), verified.Trust()}
	if err := format.print(o.stdout, v, func(w io.Writer) error { return printVerify(w, v) }); err != nil {
		return err
	}
	if role, when, expired := verified.ExpiredAt(time.Now()); expired {
		return &exitcode.Error{Code: exitcode.Stale, Err: fmt.Errorf("%s metadata expired at %s: have the signer re-sign it", role, when.UTC().Format(time.RFC3339))}
	}
	return nil
}

func printVerify(w io.Writer, v verifyView) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "Node\t%s\n", v.Node)
	fmt.Fprintf(tw, "Commit\t%s\n", orNone(v.Commit))
	fmt.Fprintf(tw, "Generation\t%d\n", v.Generation)
	fmt.Fprintf(tw, "Manifest\t%s\n", v.Manifest)
	fmt.Fprintf(tw, "\nROLE\tVERSION\tEXPIRES\tACCEPTED KEYS\n")
	for _, role := range slices.Sorted(maps.Keys(v.Trust.Expires)) {
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\n", role, v.Trust.Versions[role], v.Trust.Expires[role].UTC().Format(time.RFC3339),
			strings.Join(v.Trust.KeyIDs[role], " "))
	}
	return tw.Flush()
}
