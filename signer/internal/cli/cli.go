// Package cli is the command line of gpuaas-signer: one file a command. Each
// constructor only parses; what a command does is in a run function that takes
// plain options. Commands find what is wrong before they write anything.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpuaas/node-agent/internal/buildinfo"
	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/schema/strict"
)

// options are the flags that every command has, and what the process was given.
type options struct {
	// dir is where the command runs as if it was started there.
	dir    string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	env    func(string) string
	now    func() time.Time
	// started is set when a command begins: errors before are of the command line.
	started bool
}

// Run runs the command line and returns the process' exit code.
func Run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o := &options{stdin: stdin, stdout: stdout, stderr: stderr, env: os.Getenv, now: time.Now}
	root := newRoot(o)
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	return o.finish(c, err)
}

// finish says what went wrong. Errors in files come one a line, as editors and
// CI read them.
func (o *options) finish(c *cobra.Command, err error) int {
	if err != nil && !o.started {
		if !strings.ContainsAny(err.Error(), "`\n") { // it names no help and no command that was meant
			err = fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath())
		}
		err = exitcode.UsageError(err)
	}
	code, message := exitcode.Of(err)
	var errs strict.Errors
	if errors.As(err, &errs) {
		fmt.Fprintln(o.stderr, errs)
		message = plural(len(errs), "error")
	}
	if message != "" {
		fmt.Fprintln(o.stderr, "gpuaas-signer:", message)
	}
	return code
}

func newRoot(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "gpuaas-signer",
		Short: "Render, sign and publish what a fleet of nodes runs",
		Long: `gpuaas-signer works on a fleet repo: it checks what people wrote, renders it into
one manifest per node, signs the manifests and publishes them to the signed
branch, from where nodes take them. It also builds and pushes packages.

` + exitcode.Help,
		SilenceUsage: true, SilenceErrors: true,
		Version: buildinfo.Version(),
	}
	root.SetIn(o.stdin)
	root.SetOut(o.stdout)
	root.SetErr(o.stderr)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return exitcode.UsageError(fmt.Errorf("%w (see `%s --help`)", err, c.CommandPath()))
	})
	root.PersistentFlags().StringVarP(&o.dir, "chdir", "C", ".", "run as if started in this folder; the fleet repo is it or above it")
	for _, c := range []*cobra.Command{
		newInit(o), newValidate(o), newRender(o), newDiff(o), newSign(o), newRefresh(o), newPublish(o), newInspect(o),
		newKeys(o), newPackage(o), newVersion(o), newDocs(root),
	} {
		root.AddCommand(c)
	}
	o.finishCommands(root)
	return root
}

// finishCommands gives every command the exit codes in its help, and lets none
// take arguments that it doesn't know of.
func (o *options) finishCommands(c *cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.Long == "" {
			sub.Long = sub.Short + "."
		}
		sub.Long += "\n\n" + exitcode.Help
		if sub.Args == nil {
			sub.Args = cobra.NoArgs
		}
		if sub.HasSubCommands() {
			// Without a run function cobra would print help and call it success.
			sub.RunE = func(cmd *cobra.Command, _ []string) error {
				return exitcode.UsageError(fmt.Errorf("name one of its commands (see `%s --help`)", cmd.CommandPath()))
			}
		}
		run := sub.RunE
		sub.RunE = func(cmd *cobra.Command, args []string) error {
			o.started = true
			return run(cmd, args)
		}
		o.finishCommands(sub)
	}
}

// path is where a path of the command line is, with -C.
func (o *options) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(o.dir, p)
}

// say tells a person something on standard error; standard output is for results.
func (o *options) say(format string, args ...any) {
	fmt.Fprintf(o.stderr, format+"\n", args...)
}

// terminal reports whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour reports whether output may have colours (no-color.org).
func (o *options) colour() bool {
	return o.env("NO_COLOR") == "" && o.env("TERM") != "dumb" && terminal(o.stdout)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
