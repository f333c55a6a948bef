// Package cli is the command line of gpuaas-node-agent: one file a command.
// Each constructor only parses; what a command does is in a run function that
// takes plain options. Commands that look never change anything, and never need
// the lock of a running agent.
package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpuaas/node-agent/agent/internal/config"
	"github.com/gpuaas/node-agent/internal/buildinfo"
	"github.com/gpuaas/node-agent/internal/exitcode"
)

// options are the flags that every command has.
type options struct {
	user   bool
	config string
	over   config.Overrides
	stdout io.Writer
	stderr io.Writer
	stdin  io.Reader
	env    func(string) string
}

// Run runs the command line and returns the process' exit code.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := newRoot(&options{stdin: stdin, stdout: stdout, stderr: stderr, env: os.Getenv})
	root.SetArgs(args)
	code, message := exitcode.Of(root.ExecuteContext(ctx))
	if message != "" {
		fmt.Fprintln(stderr, "gpuaas-node-agent:", message)
	}
	return code
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "gpuaas-node-agent",
		Short: "Keep this host as the signed branch says",
		Long: `gpuaas-node-agent polls the signed branch of a fleet, verifies it, and makes this
host what its manifest says: packages by digest, files, systemd units and their
state. It repairs drift, rolls back what fails, and reports what it does.

` + exitcode.Help,
		SilenceUsage: true, SilenceErrors: true,
		Version: buildinfo.Version(),
		Args:    unknownCommand,

		SuggestionsMinimumDistance: 2,
		RunE:                       func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetIn(o.stdin)
	root.SetOut(o.stdout)
	root.SetErr(o.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitcode.UsageError(fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath()))
	})
	flags := root.PersistentFlags()
	flags.BoolVar(&o.user, "user", false, "work below the XDG folders with this user's systemd manager, without root")
	flags.StringVar(&o.config, "config", "", "config.yaml to use (default: the scope's own)")
	flags.StringVar(&o.over.Node, "node", "", "node id, over GPUAAS_NODE_ID and config.yaml")
	flags.StringVar(&o.over.SourceURL, "source", "", "URL of the signed branch's repository, over GPUAAS_SOURCE_URL and config.yaml")
	commands := []*cobra.Command{newRun(o), newOnce(o), newPlan(o), newStatus(o), newVerify(o), newVersion(o), newDocs(root)}
	for _, c := range append(commands, newChildren(o)...) {
		usageArgs(c)
		root.AddCommand(c)
	}
	return root
}

// unknownCommand is a usage error that suggests what was meant.
func unknownCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("unknown command %q (see `%s --help`)", args[0], c.CommandPath())
	if known := c.SuggestionsFor(args[0]); len(known) > 0 {
		err = fmt.Errorf("unknown command %q; did you mean %s?", args[0], known[0])
	}
	return exitcode.UsageError(err)
}

// usageArgs makes wrong arguments a usage error, exit code 2.
func usageArgs(c *cobra.Command) {
	check := c.Args
	if check == nil {
		check = cobra.NoArgs
	}
	c.Args = func(cmd *cobra.Command, args []string) error {
		return exitcode.UsageError(check(cmd, args))
	}
}

func (o *options) load() (config.Config, error) {
	scope := config.System
	if o.user {
		scope = config.User
	}
	return config.Load(scope, o.config, o.env, o.over)
}

// logger writes for people on a terminal and JSON for machines, to stderr.
func (o *options) logger(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config checked it
	format := c.Format
	if format == "" {
		format = "json"
		if f, ok := o.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			format = "text"
		}
	}
	handler := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(o.stderr, handler))
	}
	return slog.New(slog.NewJSONHandler(o.stderr, handler))
}
