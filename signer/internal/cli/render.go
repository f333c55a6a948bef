package cli

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/render"
)

type renderOptions struct {
	nodes  []string
	format output
	out    string
}

func newRender(o *options) *cobra.Command {
	var ro renderOptions
	c := &cobra.Command{
		Use:   "render [NODE...]",
		Short: "Print the manifests of nodes, or of all",
		Long: `Print what nodes would get: their manifests without generation and source, which
publishing adds. The same fleet gives the same bytes on every machine.`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			r, err := o.load()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			ids := slices.Sorted(maps.Keys(r.manifests))
			return slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(given, id) }), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			ro.nodes = args
			return runRender(o, ro)
		},
	}
	ro.format.register(c, "yaml", "json")
	c.Flags().StringVar(&ro.out, "out", "", "write one file a node into this folder, which must be new or empty")
	return c
}

func runRender(o *options, ro renderOptions) error {
	r, err := o.load()
	if err != nil {
		return err
	}
	ids := slices.Sorted(maps.Keys(r.manifests))
	if len(ro.nodes) > 0 {
		for _, id := range ro.nodes {
			if _, ok := r.manifests[id]; !ok {
				return exitcode.UsageError(fmt.Errorf("there is no node %q in the fleet repo; it has %s", id, some(ids)))
			}
		}
		ids = slices.Compact(slices.Sorted(slices.Values(ro.nodes)))
	}
	if ro.out != "" {
		return writeManifests(o, r, ids, ro)
	}
	for i, id := range ids {
		data, err := encodeManifest(r.manifests[id], ro.format.format)
		if err != nil {
			return err
		}
		if i > 0 && ro.format.format == "yaml" {
			data = append([]byte("---\n"), data...)
		}
		if _, err := o.stdout.Write(data); err != nil {
			return err
		}
	}
	return nil
}

func encodeManifest(m v1.NodeManifest, format string) ([]byte, error) {
	if format == "json" {
		var b bytes.Buffer
		err := printJSON(&b, render.View(m))
		return b.Bytes(), err
	}
	return render.Content(m)
}

func writeManifests(o *options, r *repo, ids []string, ro renderOptions) error {
	dir := o.path(ro.out)
	empty, err := emptyFolder(dir)
	if err != nil {
		return fmt.Errorf("cannot write to --out: %w", err)
	}
	if !empty {
		return fmt.Errorf("cannot write to --out %s: it holds files, which would be mixed up with the new ones", ro.out)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot write to --out: %w", err)
	}
	for _, id := range ids {
		data, err := encodeManifest(r.manifests[id], ro.format.format)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, id+"."+ro.format.format), data, 0o644); err != nil {
			return fmt.Errorf("cannot write to --out: %w", err)
		}
	}
	o.say("wrote %s to %s", plural(len(ids), "manifest"), ro.out)
	return nil
}

// some lists names for a message, not too many of them.
func some(names []string) string {
	const enough = 10
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > enough:
		return fmt.Sprintf("%s and %d more", strings.Join(names[:enough], ", "), len(names)-enough)
	}
	return strings.Join(names, ", ")
}
