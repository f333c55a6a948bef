package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func newOnce(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "once",
		Short: "Poll and reconcile once, and say how it ended",
		Long: `Poll, verify and reconcile once, then end. For a host without the service, or to
see at once what it does. Refuses to work while an agent runs here.

` + exitcode.Help,
		RunE: func(c *cobra.Command, _ []string) error { return runOnce(c.Context(), o) },
	}
}

func runOnce(ctx context.Context, o *options) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	a, err := newAgent(ctx, cfg, o.logger(cfg.Log), func(s v1.NodeStatus) error {
		return report.WriteStatus(cfg.Paths.Status(), s)
	})
	if err != nil {
		return err
	}
	defer a.close()
	s := a.loop.Once(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if code := statusCode(s); code != exitcode.OK {
		return &exitcode.Error{Code: code, Err: statusError(s)}
	}
	return nil
}

// statusError is what went wrong, for somebody who runs a command by hand.
func statusError(s v1.NodeStatus) error {
	if s.LastError != nil {
		return lastError(*s.LastError)
	}
	for _, c := range s.Conditions {
		wrong := v1.False
		if c.Type == v1.Drifted {
			wrong = v1.True
		}
		if c.Status == wrong {
			return conditionError(c)
		}
	}
	return nil
}
