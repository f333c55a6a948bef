package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func newStatus(o *options) *cobra.Command {
	var format output
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what runs here, since when, and what is wrong",
		Long: `Show the status document of the agent: generations, conditions, packages, tasks,
what is trusted, and the last error. A document that is too old to be believed
counts as stale. Changes nothing.

` + exitcode.Help,
		RunE: func(*cobra.Command, []string) error { return runStatus(o, format) },
	}
	format.register(c)
	return c
}

func runStatus(o *options, format output) error {
	cfg, err := o.load()
	if err != nil {
		return err
	}
	s, err := report.ReadStatus(cfg.Paths.Status())
	if err != nil {
		return err
	}
	now, p := time.Now(), newPainter(o.stdout, o.env)
	// Long enough for an agent at rest, whose source doesn't answer, to have written again.
	limit := time.Duration(cfg.Source.StaleAfter) + 2*max(time.Duration(cfg.Poll.Interval), 10*time.Minute)
	s = aged(s, now, limit)
	agent := "running"
	if running, err := journal.Running(cfg.Paths.State); err != nil {
		agent = "running or not, which only its own user may see"
	} else if !running {
		agent = p.bad("not running")
	}
	if err := format.print(o.stdout, s, func(w io.Writer) error { return printStatus(w, s, agent, now, p) }); err != nil {
		return err
	}
	return silent(statusCode(s))
}

// aged is a status document read at now. An agent that was stopped, or hangs, can't
// say itself that its metadata expired since, or that it is out of touch.
func aged(s v1.NodeStatus, now time.Time, limit time.Duration) v1.NodeStatus {
	if report.Condition(s, v1.Fresh).Status == v1.False {
		return s
	}
	stale := v1.Condition{Type: v1.Fresh, Status: v1.False}
	age := now.Sub(s.Updated)
	switch role, when := soonest(s.Trust); {
	case !when.IsZero() && when.Before(now):
		stale.Reason = v1.ReasonExpired
		stale.Message = fmt.Sprintf("%s metadata expired at %s, after the last report", role, when.UTC().Format(time.RFC3339))
	case age > limit:
		stale.Reason = v1.ReasonSourceUnreachable
		stale.Message = fmt.Sprintf("the last report is %s old: the agent doesn't run, or hangs", age.Round(time.Second))
	default:
		return s
	}
	s.Conditions = report.SetCondition(slices.Clone(s.Conditions), now, stale)
	return s
}

func soonest(t *v1.TrustStatus) (role string, when time.Time) {
	if t == nil {
		return "", time.Time{}
	}
	return firstExpiry(*t)
}

// statusCode is what status means as an exit code. What is wrong now comes
// before what is merely old.
func statusCode(s v1.NodeStatus) int {
	cond := func(t v1.ConditionType) v1.Condition { return report.Condition(s, t) }
	stale := cond(v1.Fresh).Status == v1.False
	older := s.ObservedGeneration != s.DesiredGeneration
	switch {
	case stale && cond(v1.Fresh).Reason == v1.ReasonExpired:
		return exitcode.Stale
	case cond(v1.Verified).Status == v1.False:
		return exitcode.Failed
	case older && s.ObservedGeneration > 0 && cond(v1.Applied).Status == v1.False:
		return exitcode.Older
	case cond(v1.Applied).Status == v1.False, cond(v1.Healthy).Status == v1.False:
		return exitcode.Failed
	case stale:
		return exitcode.Stale
	case cond(v1.Drifted).Status == v1.True, older, cond(v1.Applied).Status == v1.Unknown && s.DesiredGeneration > 0:
		return exitcode.Pending
	case s.LastError != nil, s.DesiredGeneration == 0:
		return exitcode.Failed
	}
	return exitcode.OK
}

func printStatus(w io.Writer, s v1.NodeStatus, agent string, now time.Time, p painter) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(tw, "Node\t%s\n", s.Node)
	fmt.Fprintf(tw, "Agent\t%s, %s, last report %s\n", s.AgentVersion, agent, ago(now, s.Updated))
	fmt.Fprintf(tw, "Phase\t%s\n", s.Phase)
	fmt.Fprintf(tw, "Generation\t%d observed, %d desired\n", s.ObservedGeneration, s.DesiredGeneration)
	fmt.Fprintf(tw, "Signed commit\t%s\n", orNone(s.SourceCommit))
	fmt.Fprintf(tw, "Fleet commit\t%s\n", orNone(s.FleetCommit))
	if s.Trust != nil {
		role, when := firstExpiry(*s.Trust)
		fmt.Fprintf(tw, "Trust\troot version %d, %s expires first, %s\n", s.Trust.RootVersion, role, when.UTC().Format(time.RFC3339))
	}
	fmt.Fprintf(tw, "Repairs\t%d since the agent started\n", s.Repairs)
	fmt.Fprintf(tw, "\nCONDITION\tSTATUS\tREASON\tSINCE\tMESSAGE\n")
	for _, c := range s.Conditions {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", c.Type, p.status(c), c.Reason, ago(now, c.Since), c.Message)
	}
	printElements(tw, "PACKAGE", s.Packages)
	printElements(tw, "TASK", s.Tasks)
	if e := s.LastError; e != nil {
		fmt.Fprintf(tw, "\n%s\t%s\n", p.bad("Last error"), ago(now, e.Time))
		fmt.Fprintf(tw, "  phase\t%s\n  component\t%s\n  element\t%s\n  category\t%s\n  message\t%s\n",
			e.Phase, e.Component, orNone(e.Element), e.Category, e.Message)
	}
	return tw.Flush()
}

func printElements(w io.Writer, title string, list []v1.ElementStatus) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\tSTATE\tTYPE\tDIGEST\n", title)
	for _, e := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", e.Name, e.State, e.Type, e.Digest)
	}
}

func firstExpiry(t v1.TrustStatus) (role string, when time.Time) {
	for r, at := range t.Expires {
		if when.IsZero() || at.Before(when) || at.Equal(when) && r < role {
			role, when = r, at
		}
	}
	return role, when
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return now.Sub(t).Round(time.Second).String() + " ago"
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// painter colours for a terminal only, and not where NO_COLOR is set.
type painter struct{ on bool }

func newPainter(w io.Writer, env func(string) string) painter {
	f, ok := w.(*os.File)
	return painter{on: ok && term.IsTerminal(int(f.Fd())) && env("NO_COLOR") == ""}
}

func (p painter) bad(s string) string {
	if !p.on {
		return s
	}
	return "\x1b[31m" + s + "\x1b[0m"
}

// status marks the statuses that an operator should look at.
func (p painter) status(c v1.Condition) string {
	wrong := v1.False
	if c.Type == v1.Drifted {
		wrong = v1.True
	}
	if c.Status == wrong {
		return p.bad(string(c.Status))
	}
	return string(c.Status)
}
