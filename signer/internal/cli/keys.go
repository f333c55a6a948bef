package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/publish"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

const keysUsage = "folder with the keys, or with a keys.yaml that says where they are"

func newKeys(o *options) *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Show who signs what, and change it",
	}
	c.AddCommand(newKeysList(o), newKeysPublic(o), newKeysRotate(o))
	return c
}

// keyList is what keys list prints.
type keyList struct {
	Branch string `json:"branch" yaml:"branch"`
	Commit string `json:"commit" yaml:"commit"`
	// Roles of the signed branch, and those that only KEYDIR has keys for.
	Roles []listedRole `json:"roles" yaml:"roles"`
}

type listedRole struct {
	Name      string `json:"name" yaml:"name"`
	Threshold int    `json:"threshold" yaml:"threshold"`
	// By is the metadata that says so: "root 1", "targets 3".
	By      string     `json:"by,omitempty" yaml:"by,omitempty"`
	Expires *time.Time `json:"expires,omitempty" yaml:"expires,omitempty"`
	// State is good, due (past half of its life), or expired.
	State string      `json:"state,omitempty" yaml:"state,omitempty"`
	Keys  []listedKey `json:"keys" yaml:"keys"`
}

type listedKey struct {
	// ID is empty for a key that could not be read.
	ID string `json:"id,omitempty" yaml:"id,omitempty"`
	// Counts says whether nodes accept the key's signature for the role.
	Counts bool `json:"counts" yaml:"counts"`
	// Holder is the key's URI in KEYDIR.
	Holder  string `json:"holder,omitempty" yaml:"holder,omitempty"`
	Problem string `json:"problem,omitempty" yaml:"problem,omitempty"`
}

type keysListOptions struct {
	keys, remote string
	format       output
}

func newKeysList(o *options) *cobra.Command {
	var opts keysListOptions
	c := &cobra.Command{
		Use:   "list [--keys KEYDIR]",
		Short: "List every role's keys: how many must sign, who holds them, what is overdue",
		Long: `List the keys that may sign each role of the signed branch, how many of them must,
which metadata says so, and whether the role should be signed again (due: past half of
its life). With --keys it says where each key is, and which keys in KEYDIR count for nothing.
No passphrase and no PIN is asked for. The state is shown as it was signed: inspect verifies it.`,
		RunE: func(c *cobra.Command, _ []string) error { return runKeysList(c.Context(), o, opts) },
	}
	c.Flags().StringVar(&opts.keys, "keys", "", keysUsage)
	c.Flags().StringVar(&opts.remote, "remote", "", "name or URL of a remote to look at")
	opts.format.register(c, "table", "json", "yaml")
	return c
}

func runKeysList(ctx context.Context, o *options, opts keysListOptions) error {
	dir, err := o.fleetDir()
	if err != nil {
		return err
	}
	fleet, err := fleetFile(dir)
	if err != nil {
		return err
	}
	git, err := publish.Open(dir)
	if err != nil {
		return err
	}
	commit, err := signedCommit(ctx, git, fleet.Signed.Branch, opts.remote)
	if err != nil {
		return err
	}
	tree, err := git.Tree(commit)
	if err != nil {
		return err
	}
	in, err := sign.Inspect(tree)
	if err != nil {
		return fmt.Errorf("cannot read the signed state of %s: %w", short(commit), err)
	}
	out := keyList{Branch: fleet.Signed.Branch, Commit: commit, Roles: rolesOf(in)}
	now := o.now()
	for i := range out.Roles {
		r := &out.Roles[i]
		switch {
		case !r.Expires.After(now):
			r.State = "expired"
		case sign.Due(r.Name, *r.Expires, now, fleet.Expiries):
			r.State = "due"
		default:
			r.State = "good"
		}
	}
	if opts.keys != "" {
		if err := out.locate(ctx, o, opts.keys); err != nil {
			return err
		}
	}
	return opts.format.print(o.stdout, out, out.table(now))
}

// rolesOf lists the keys that count.
func rolesOf(in sign.Inspection) []listedRole {
	versions := map[string]int64{}
	for _, r := range in.Roles {
		versions[r.Name] = r.Version
	}
	var out []listedRole
	for _, r := range in.Roles {
		by := "root"
		if r.Team {
			by = "targets"
		}
		role := listedRole{Name: r.Name, Threshold: r.Threshold, By: fmt.Sprintf("%s %d", by, versions[by]), Expires: &r.Expires}
		for _, id := range r.KeyIDs {
			role.Keys = append(role.Keys, listedKey{ID: id, Counts: true})
		}
		out = append(out, role)
	}
	return out
}

// locate says where the keys are, and adds those that count for nothing.
func (l *keyList) locate(ctx context.Context, o *options, dir string) error {
	set, err := o.keySet(dir, "")
	if err != nil {
		return err
	}
	roles, err := set.Roles()
	if err != nil {
		return err
	}
	for _, name := range roles {
		i := slices.IndexFunc(l.Roles, func(r listedRole) bool { return r.Name == name })
		if i < 0 {
			i, l.Roles = len(l.Roles), append(l.Roles, listedRole{Name: name})
		}
		uris, err := set.URIs(name)
		if err != nil {
			return err
		}
		for _, uri := range uris {
			l.Roles[i].hold(keyAt(ctx, o, uri))
		}
	}
	return nil
}

// hold puts a key of KEYDIR where it belongs in the list.
func (r *listedRole) hold(key listedKey) {
	for i, k := range r.Keys {
		if key.ID != "" && k.ID == key.ID && k.Holder == "" {
			r.Keys[i].Holder = key.Holder
			return
		}
	}
	r.Keys = append(r.Keys, key)
}

// keyAt identifies a key; one that can't be read is no reason to show none.
func keyAt(ctx context.Context, o *options, uri string) listedKey {
	key := listedKey{Holder: uri}
	public, err := keys.Public(ctx, uri, keys.Options{Env: o.env})
	if err == nil {
		key.ID, err = keys.ID(public)
	}
	if err != nil {
		key.Problem = err.Error()
	}
	return key
}

func (l keyList) table(now time.Time) func(io.Writer) error {
	return func(w io.Writer) error {
		fmt.Fprintf(w, "%s at %s\n\n", l.Branch, l.Commit)
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "ROLE\tNEEDS\tBY\tEXPIRES\tSTATE\tKEY\tCOUNTS\tHOLDER")
		for _, r := range l.Roles {
			needs, expires := "-", "-"
			if r.Expires != nil {
				counting := slices.DeleteFunc(slices.Clone(r.Keys), func(k listedKey) bool { return !k.Counts })
				needs, expires = fmt.Sprintf("%d of %d", r.Threshold, len(counting)), until(now, *r.Expires)
			}
			row := []string{r.Name, needs, cmp.Or(r.By, "-"), expires, cmp.Or(r.State, "-")}
			for _, k := range r.Keys {
				fmt.Fprintf(t, "%s\t%s\n", strings.Join(row, "\t"), k.columns())
				row = []string{"", "", "", "", ""}
			}
		}
		return t.Flush()
	}
}

func (k listedKey) columns() string {
	counts := "yes"
	if !k.Counts {
		counts = "no"
	}
	holder := cmp.Or(k.Holder, "-")
	if k.Problem != "" {
		counts, holder = "?", k.Problem
	}
	return fmt.Sprintf("%s\t%s\t%s", cmp.Or(k.ID[:min(len(k.ID), 8)], "-"), counts, holder)
}

func newKeysPublic(o *options) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "public --keys KEYDIR [ROLE...]",
		Short: "Print public keys, to hand to others",
		Long: `Print the public keys of the roles, or of all roles that KEYDIR has keys for: one a line as
OpenSSH writes them, with the role as comment. Saved to a file NAME.pub, such a line is a key that
others can list in their keys.yaml. No passphrase and no PIN is asked for.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, roles []string) error { return runKeysPublic(c.Context(), o, dir, roles) },
	}
	c.Flags().StringVar(&dir, "keys", "", keysUsage)
	_ = c.MarkFlagRequired("keys")
	return c
}

func runKeysPublic(ctx context.Context, o *options, dir string, roles []string) error {
	set, err := o.keySet(dir, "")
	if err != nil {
		return err
	}
	if len(roles) == 0 {
		if roles, err = set.Roles(); err != nil {
			return err
		}
	}
	var lines []string
	for _, role := range roles {
		public, err := set.Public(ctx, role)
		if err != nil {
			return err
		}
		for _, key := range public {
			line, err := keys.FormatPublic(key, role)
			if err != nil {
				return err
			}
			lines = append(lines, line+"\n")
		}
	}
	_, err = fmt.Fprint(o.stdout, strings.Join(lines, ""))
	return err
}
