package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/render"
	"github.com/gpuaas/node-agent/signer/internal/sign"
	"github.com/gpuaas/node-agent/signer/internal/worktree"
)

type signOptions struct {
	keys           string
	passphraseFile string
	offline        bool
	refresh        bool
}

func newSign(o *options) *cobra.Command {
	var so signOptions
	c := &cobra.Command{
		Use:   "sign --keys KEYDIR",
		Short: "Render, sign, and commit to the local signed branch",
		Long: `Render the fleet repo as it is committed, sign the manifests that changed, and commit the
new state to the local branch signed, on top of what the remote has. Nothing is
pushed: publish does that. KEYDIR needs the keys of the teams whose nodes change,
snapshot.key and timestamp.key. With no manifest changed, metadata is signed again
when it needs to be, so that it doesn't expire.`,
		RunE: func(c *cobra.Command, _ []string) error { return runSign(c.Context(), o, so) },
	}
	f := c.Flags()
	f.StringVar(&so.keys, "keys", "", "folder with the private keys, or with a keys.yaml that says where they are")
	f.StringVar(&so.passphraseFile, "passphrase-file", "", "file with the passphrase of the keys (default: ask where needed)")
	f.BoolVar(&so.offline, "offline", false, "build on the local signed branch without asking the remote")
	f.BoolVar(&so.refresh, "refresh", false, "sign metadata again even if it is still good for long")
	_ = c.MarkFlagRequired("keys")
	return c
}

func runSign(ctx context.Context, o *options, so signOptions) error {
	r, err := o.load()
	if err != nil {
		return err
	}
	s := &signing{opts: so, repo: r}
	if err := s.prepare(ctx, o); err != nil {
		return err
	}
	files, removed, err := s.sign(ctx)
	if err != nil {
		return err
	}
	if len(files) == 0 && len(removed) == 0 {
		o.say("nothing to sign: every manifest is as in %s, and the metadata is good for long", short(s.base))
		return nil
	}
	commit, err := s.commit(files, removed, s.message())
	if err != nil {
		return err
	}
	o.say("signed %s, %d removed: branch %s is at %s", plural(len(s.changes), "changed manifest"), len(s.removals), s.branch, short(commit))
	_, err = fmt.Fprintln(o.stdout, commit)
	return err
}

// signing is one run of sign.
type signing struct {
	*state
	opts signOptions
	repo *repo

	source v1.ManifestSource
	set    keys.Set

	changes  map[string][]byte
	removals []string
}

// prepare finds everything that must be right before a key is touched.
func (s *signing) prepare(ctx context.Context, o *options) (err error) {
	if unpinned := s.repo.notPinned(); len(unpinned) > 0 {
		return fmt.Errorf("cannot sign: package %s is not pinned; push it with gpuaas-signer package push LAYOUT %s --pin %s",
			unpinned[0].Name, unpinned[0].Ref, unpinned[0].File)
	}
	if s.state, err = openState(o, s.repo.dir, s.repo.fleet.Fleet); err != nil {
		return err
	}
	if s.source, err = s.findSource(); err != nil {
		return err
	}
	if s.set, err = o.keySet(s.opts.keys, s.opts.passphraseFile); err != nil {
		return err
	}
	return s.begin(ctx, s.opts.offline)
}

// findSource returns what the manifests say they come from, and refuses files
// that aren't committed: what is signed must be what was reviewed.
func (s *signing) findSource() (v1.ManifestSource, error) {
	changed, err := worktree.Uncommitted(s.repo.dir,
		[]string{fleet.File, fleet.PackagesFolder, fleet.ProfilesFolder, fleet.NodesFolder, rootFile})
	if err != nil {
		return v1.ManifestSource{}, err
	}
	if len(changed) > 0 {
		return v1.ManifestSource{}, fmt.Errorf("cannot sign: these files differ from what is committed: %s; commit or undo the changes", some(changed))
	}
	commit, err := s.git.Resolve("HEAD")
	if err != nil {
		return v1.ManifestSource{}, err
	}
	source := v1.ManifestSource{Repo: s.repo.fleet.Name, Commit: commit}
	if url, err := s.git.RemoteURL(defaultRemote); err == nil {
		source.Repo = url
	}
	return source, nil
}

// sign returns the files that the new state changes.
func (s *signing) sign(ctx context.Context) (files sign.Files, removed []string, err error) {
	base, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	added, base, err := s.addTeams(ctx, base)
	if err != nil {
		return nil, nil, err
	}
	if err := s.stamp(sign.NextGeneration(base)); err != nil {
		return nil, nil, err
	}
	switch {
	case len(s.changes) > 0 || len(s.removals) > 0:
		signers, err := s.signers(ctx, s.teamsConcerned()...)
		if err != nil {
			return nil, nil, err
		}
		defer closeKeys(signers)
		if files, removed, err = sign.Update(base, s.changes, s.removals, signers, s.now, s.expiries); err != nil {
			return nil, nil, fmt.Errorf("cannot sign: %w", err)
		}
	case len(added) == 0:
		return s.refreshed(ctx, base)
	}
	for path, data := range added {
		if _, ok := files[path]; !ok {
			if files == nil {
				files = sign.Files{}
			}
			files[path] = data
		}
	}
	return files, removed, nil
}

// stamp finds out which manifests change.
func (s *signing) stamp(generation int64) error {
	before, err := signedManifests(s.tree)
	if err != nil {
		return err
	}
	nodes := s.repo.fleet.Nodes
	stamped := make([][]byte, len(nodes)) // nil: as published
	err = s.repo.eachNode(func(i int, target string, m v1.NodeManifest) error {
		data, changed, err := render.Stamp(before[target], m, s.source, generation)
		if changed {
			stamped[i] = data
		}
		return err
	})
	if err != nil {
		return err
	}
	s.changes = map[string][]byte{}
	for i, n := range nodes {
		target := trust.TargetPath(n.TeamOf(), n.ID)
		if stamped[i] != nil {
			s.changes[target] = stamped[i]
		}
		delete(before, target)
	}
	s.removals = slices.Sorted(maps.Keys(before))
	return nil
}

// teamsConcerned are the roles whose manifests change.
func (s *signing) teamsConcerned() []string {
	teams := map[string]bool{}
	for _, target := range slices.Concat(slices.Collect(maps.Keys(s.changes)), s.removals) {
		if team, _, err := trust.ParseTargetPath(target); err == nil {
			teams[team] = true
		}
	}
	return slices.Sorted(maps.Keys(teams))
}

// signers opens the online keys and those of the teams.
func (s *signing) signers(ctx context.Context, teams ...string) (keys.Signers, error) {
	return s.set.Open(ctx, append(slices.Clone(teams), "snapshot", "timestamp")...)
}

// addTeams delegates to teams that are new in fleet.yaml.
func (s *signing) addTeams(ctx context.Context, base *sign.Base) (added sign.Files, next *sign.Base, err error) {
	known := base.Teams()
	added = sign.Files{}
	for _, t := range s.repo.fleet.Teams {
		if slices.Contains(known, t.Name) {
			continue
		}
		files, err := s.addTeam(ctx, base, t)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot let the new team %s sign: %w", t.Name, err)
		}
		maps.Copy(added, files)
		if base, err = sign.Open(s.root, overlay{base: s.tree, files: added}); err != nil {
			return nil, nil, fmt.Errorf("cannot let the new team %s sign: %w", t.Name, err)
		}
	}
	return added, base, nil
}

// addTeam gives the team all keys that the set lists for it, other people's too.
func (s *signing) addTeam(ctx context.Context, base *sign.Base, t v1.Team) (sign.Files, error) {
	public, err := s.set.Public(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	signers, err := s.signers(ctx, "targets", t.Name)
	if err != nil {
		return nil, err
	}
	defer closeKeys(signers)
	authority := sign.Authority{Threshold: t.Threshold}
	for _, key := range public {
		authority.Keys = append(authority.Keys, key)
	}
	return sign.AddTeam(base, sign.Team{Name: t.Name, Authority: authority}, signers, s.now, s.expiries)
}

// refreshed signs metadata again that would expire.
func (s *signing) refreshed(ctx context.Context, base *sign.Base) (sign.Files, []string, error) {
	if !s.opts.refresh {
		due, err := s.due()
		if err != nil || !due {
			return nil, nil, err
		}
	}
	have, err := s.set.Roles()
	if err != nil {
		return nil, nil, err
	}
	var teams []string
	for _, t := range base.Teams() {
		if slices.Contains(have, t) {
			teams = append(teams, t)
		}
	}
	signers, err := s.signers(ctx, teams...)
	if err != nil {
		return nil, nil, err
	}
	defer closeKeys(signers)
	files, overdue, err := sign.Refresh(base, signers, s.now, s.expiries)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot sign: %w", err)
	}
	if len(overdue) > 0 {
		s.o.say("warning: these roles expire soon and their keys are not in %s: %s", s.opts.keys, strings.Join(overdue, ", "))
	}
	return files, nil, nil
}

// due reports whether a role that online keys sign is past half of its life.
func (s *signing) due() (bool, error) {
	in, err := sign.Inspect(s.tree)
	if err != nil {
		return false, err
	}
	for _, role := range in.Roles {
		if !offline(role.Name) && sign.Due(role.Name, role.Expires, s.now, s.expiries) {
			return true, nil
		}
	}
	return false, nil
}

// offline are the roles whose keys are in a safe.
func offline(role string) bool { return role == "root" || role == "targets" }

// message is that of the commit; what counts is in the metadata.
func (s *signing) message() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Publish %s: %d changed, %d removed\n\n", short(s.source.Commit), len(s.changes), len(s.removals))
	fmt.Fprintf(&b, "fleet commit %s\n", s.source.Commit)
	const enough = 50
	listed := 0
	for _, group := range []struct {
		verb    string
		targets []string
	}{{"changed", slices.Sorted(maps.Keys(s.changes))}, {"removed", s.removals}} {
		for _, target := range group.targets {
			if listed++; listed > enough {
				continue
			}
			_, node, _ := trust.ParseTargetPath(target)
			fmt.Fprintf(&b, "%s %s\n", group.verb, node)
		}
	}
	if listed > enough {
		fmt.Fprintf(&b, "and %d more\n", listed-enough)
	}
	return b.String()
}
