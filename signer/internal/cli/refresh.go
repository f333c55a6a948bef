package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

type refreshOptions struct {
	keys           string
	passphraseFile string
	offline        bool
	dryRun         bool
}

func newRefresh(o *options) *cobra.Command {
	var opts refreshOptions
	c := &cobra.Command{
		Use:   "refresh --keys KEYDIR",
		Short: "Sign metadata again before it expires",
		Long: `Sign again, unchanged, every role of the signed branch that is past half of its life, and
commit that to the local branch signed; publish pushes it. It looks at the signed branch only, so it
works while main is being worked on. Run it at least twice in the timestamp's life, as the scheduled
job of the fleet repo does.

KEYDIR needs snapshot.key and timestamp.key. Of other roles that are due, those that KEYDIR has
enough keys for are signed; the others are warned of. With --dry-run nothing is signed; it exits
with 5 when something is due. It exits with 4 when a role has expired that KEYDIR has no keys for.`,
		RunE: func(c *cobra.Command, _ []string) error { return runRefresh(c.Context(), o, opts) },
	}
	f := c.Flags()
	f.StringVar(&opts.keys, "keys", "", keysUsage)
	f.StringVar(&opts.passphraseFile, "passphrase-file", "", "file with the passphrase of the keys (default: ask where needed)")
	f.BoolVar(&opts.offline, "offline", false, "build on the local signed branch without asking the remote")
	f.BoolVar(&opts.dryRun, "dry-run", false, "only say what is due")
	_ = c.MarkFlagRequired("keys")
	return c
}

func runRefresh(ctx context.Context, o *options, opts refreshOptions) error {
	dir, err := o.fleetDir()
	if err != nil {
		return err
	}
	fleet, err := fleetFile(dir)
	if err != nil {
		return err
	}
	set, err := o.keySet(opts.keys, opts.passphraseFile)
	if err != nil {
		return err
	}
	s, err := openState(o, dir, fleet)
	if err != nil {
		return err
	}
	if err := s.begin(ctx, opts.offline); err != nil {
		return err
	}
	due, err := s.dueRoles(set)
	if err != nil {
		return err
	}
	if opts.dryRun {
		return due.report(s)
	}
	if len(due.here) == 0 {
		due.warn(s, due.lacking)
		if len(due.lacking) == 0 {
			o.say("nothing is due: the metadata in %s is good for long", short(s.base))
		}
		return due.expired(s)
	}
	return s.refresh(ctx, set, due)
}

// dueRoles are the roles past half of their life: those that there are keys for here, and those that not.
type dueRoles struct{ here, lacking []sign.RoleInfo }

func (s *state) dueRoles(set keys.Set) (due dueRoles, err error) {
	in, err := sign.Inspect(s.tree)
	if err != nil {
		return due, fmt.Errorf("cannot read the signed state of %s: %w", short(s.base), err)
	}
	have, err := set.Roles()
	if err != nil {
		return due, err
	}
	for _, r := range in.Roles {
		switch {
		case !sign.Due(r.Name, r.Expires, s.now, s.expiries):
		case online(r.Name) || slices.Contains(have, r.Name):
			due.here = append(due.here, r)
		default:
			due.lacking = append(due.lacking, r)
		}
	}
	return due, nil
}

// online are the roles that every new state is signed with.
func online(role string) bool { return role == "snapshot" || role == "timestamp" }

// report is what --dry-run prints.
func (d dueRoles) report(s *state) error {
	for _, r := range d.here {
		if _, err := fmt.Fprintf(s.o.stdout, "%s expires %s\n", r.Name, until(s.now, r.Expires)); err != nil {
			return err
		}
	}
	d.warn(s, d.lacking)
	if err := d.expired(s); err != nil {
		return err
	}
	if len(d.here) == 0 {
		return nil
	}
	return exitcode.Silent(exitcode.Pending)
}

func (d dueRoles) warn(s *state, roles []sign.RoleInfo) {
	for _, r := range roles {
		s.o.say("warning: %s expires %s, and there are not enough of its keys here: run refresh where %d of them are",
			r.Name, until(s.now, r.Expires), r.Threshold)
	}
}

// expired is an error if a role has expired that can't be signed here.
func (d dueRoles) expired(s *state) error {
	for _, r := range d.lacking {
		if !r.Expires.After(s.now) {
			return &exitcode.Error{Code: exitcode.Stale, Err: fmt.Errorf("%s has expired, and its keys are not here: nodes take nothing new", r.Name)}
		}
	}
	return nil
}

// refresh signs what is due.
func (s *state) refresh(ctx context.Context, set keys.Set, due dueRoles) error {
	base, err := s.open()
	if err != nil {
		return err
	}
	signers, err := set.Open(ctx, "snapshot", "timestamp")
	if err != nil {
		return err
	}
	defer closeKeys(signers)
	for _, r := range due.here {
		if online(r.Name) {
			continue
		}
		some, err := set.OpenPresent(ctx, r.Name)
		if err != nil {
			return err
		}
		defer closeKeys(some)
		signers[r.Name] = some[r.Name]
	}
	files, overdue, err := sign.Refresh(base, signers, s.now, s.expiries)
	if err != nil {
		return fmt.Errorf("cannot refresh: %w", err)
	}
	var signed []string
	for _, r := range slices.Concat(due.here, due.lacking) {
		if slices.Contains(overdue, r.Name) {
			due.warn(s, []sign.RoleInfo{r})
		} else {
			signed = append(signed, r.Name)
		}
	}
	commit, err := s.commit(files, nil, fmt.Sprintf("Refresh %s\n", strings.Join(signed, ", ")))
	if err != nil {
		return err
	}
	s.o.say("refreshed %s: branch %s is at %s", strings.Join(signed, ", "), s.branch, short(commit))
	_, err = fmt.Fprintln(s.o.stdout, commit)
	return err
}
