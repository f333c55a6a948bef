package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/agent/internal/fetch"
	"github.com/gpuaas/node-agent/agent/internal/source"
	"github.com/gpuaas/node-agent/agent/internal/store"
)

// newChildren are the hidden commands that the agent runs itself as, so that what
// needs much memory, or reads what strangers sent, ends with its process.
func newChildren(o *options) []*cobra.Command {
	child := func(name string, run func(ctx context.Context) error) *cobra.Command {
		return &cobra.Command{
			Use: name, Hidden: true, Short: "For the agent's own use",
			RunE: func(c *cobra.Command, _ []string) error { return run(c.Context()) },
		}
	}
	return []*cobra.Command{
		child(source.ChildCommand, func(ctx context.Context) error { return source.RunChild(ctx, o.stdin, o.stdout) }),
		child(fetch.ChildCommand, func(ctx context.Context) error { return fetch.RunChild(ctx, o.stdin, o.stdout, o.stderr) }),
		child(store.ChildCommand, func(ctx context.Context) error { return store.RunChild(ctx, o.stdin, o.stdout) }),
	}
}
