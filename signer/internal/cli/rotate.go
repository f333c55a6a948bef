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

type rotateOptions struct {
	role           string
	keys           string
	fresh          []string
	threshold      int
	passphraseFile string
	offline        bool
	dryRun         bool
}

func newKeysRotate(o *options) *cobra.Command {
	var opts rotateOptions
	c := &cobra.Command{
		Use:   "rotate ROLE --keys KEYDIR --new KEY [--new KEY...]",
		Short: "Give a role other keys",
		Long: `Give a role other keys, sign with them what it signs, and commit that to the local branch signed;
publish pushes it. The keys named with --new, files (ssh-keygen -t ed25519 makes them) or URIs, are all
that may sign the role from then on: to exchange one of several, name those that stay as well.
A NAME.pub is somebody else's key, which counts but can't sign here.

KEYDIR needs the root keys, or for a team targets.key; and snapshot.key and timestamp.key, but not for root
or timestamp themselves. A new root is signed by a threshold of the former keys and of the new ones, so
that nodes follow it, however long they slept. trust/root.json stays good for new nodes. With --dry-run
everything is signed and verified and nothing kept; it exits with 5.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			opts.role = args[0]
			return runRotate(c.Context(), o, opts)
		},
	}
	f := c.Flags()
	f.StringVar(&opts.keys, "keys", "", keysUsage)
	f.StringArrayVar(&opts.fresh, "new", nil, "a key of the role from now on; may be repeated")
	f.IntVar(&opts.threshold, "threshold", 0, "how many of the keys must sign (default: as many as now)")
	f.StringVar(&opts.passphraseFile, "passphrase-file", "", "file with the passphrase of the keys (default: ask where needed)")
	f.BoolVar(&opts.offline, "offline", false, "build on the local signed branch without asking the remote")
	f.BoolVar(&opts.dryRun, "dry-run", false, "keep nothing")
	_ = c.MarkFlagRequired("keys")
	_ = c.MarkFlagRequired("new")
	return c
}

func runRotate(ctx context.Context, o *options, opts rotateOptions) error {
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
	base, err := s.open()
	if err != nil {
		return err
	}
	now, err := s.roleNow(opts.role)
	if err != nil {
		return err
	}
	if opts.threshold == 0 {
		opts.threshold = now.Threshold
	}
	authority, signers, err := rotationKeys(ctx, o, set, now, opts)
	defer closeKeys(signers)
	if err != nil {
		return err
	}
	files, err := sign.Rotate(base, opts.role, authority, signers, s.now, s.expiries)
	if err != nil {
		return err
	}
	if opts.dryRun {
		if err := s.verify(files, nil); err != nil {
			return err
		}
		o.say("would rotate the keys of %s: %d of %s must sign; nothing was kept", opts.role, opts.threshold, plural(len(opts.fresh), "key"))
		return exitcode.Silent(exitcode.Pending)
	}
	commit, err := s.commit(files, nil, fmt.Sprintf("Rotate the keys of %s\n", opts.role))
	if err != nil {
		return err
	}
	o.say("rotated the keys of %s: branch %s is at %s. Publish it, and list the new keys in %s of %s, under roles, %s",
		opts.role, s.branch, short(commit), keys.ListFile, opts.keys, opts.role)
	_, err = fmt.Fprintln(o.stdout, commit)
	return err
}

// roleNow is what the signed branch says of a role.
func (s *state) roleNow(name string) (sign.RoleInfo, error) {
	in, err := sign.Inspect(s.tree)
	if err != nil {
		return sign.RoleInfo{}, fmt.Errorf("cannot read the signed state of %s: %w", short(s.base), err)
	}
	var known []string
	for _, r := range in.Roles {
		if r.Name == name {
			return r, nil
		}
		known = append(known, r.Name)
	}
	return sign.RoleInfo{}, exitcode.UsageError(fmt.Errorf("there is no role %q; the signed branch has %s", name, strings.Join(known, ", ")))
}

// rotationKeys opens the keys that a rotation takes. The signers are to be closed in any case.
func rotationKeys(ctx context.Context, o *options, set keys.Set, role sign.RoleInfo, opts rotateOptions) (to sign.Authority, signers keys.Signers, err error) {
	delegator := "root"
	if role.Team {
		delegator = "targets"
	}
	if signers, err = set.OpenPresent(ctx, delegator); err != nil {
		return to, nil, err
	}
	if role.Name != "root" {
		signers[role.Name] = nil // nothing is signed with the former keys
		if role.Name != "timestamp" {
			needed := slices.DeleteFunc([]string{"snapshot", "timestamp"}, func(r string) bool { return r == role.Name })
			online, err := set.Open(ctx, needed...)
			if err != nil {
				return to, signers, err
			}
			for name, list := range online {
				signers[name] = list
			}
		}
	}
	to.Threshold = opts.threshold
	unlock := keys.Options{Passphrase: set.Passphrase, PIN: set.PIN, Env: set.Env}
	for _, uri := range opts.fresh {
		if !strings.Contains(uri, ":") {
			uri = o.path(uri)
		}
		public, err := keys.Public(ctx, uri, unlock)
		if err != nil {
			return to, signers, err
		}
		to.Keys = append(to.Keys, public)
		if strings.HasSuffix(uri, ".pub") {
			continue
		}
		key, err := keys.Open(ctx, uri, unlock)
		if err != nil {
			return to, signers, err
		}
		signers[role.Name] = append(signers[role.Name], key)
	}
	return to, signers, nil
}
