package sign

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// MaxInRole is how many manifests a team's role lists itself; one more moves
// the team to hash bins.
const MaxInRole = 500

// Update signs a new state: changes are manifests by target path, removals are target
// paths. It returns the files of the branch that are new or changed, manifests
// included, and the files to delete, sorted. The snapshot's version rises by one.
// With nothing to change it signs snapshot and timestamp again.
//
// Errors name the role whose keys are missing. Base isn't changed, and is of no more
// use once the result is published.
func Update(base *Base, changes map[string][]byte, removals []string, signers keys.Signers, now time.Time, expiries v1.Expiries) (files Files, removed []string, err error) {
	defer recovered(&err)
	byTeam, removed, err := group(changes, removals)
	if err != nil {
		return nil, nil, err
	}
	u := newUpdate(base, newPen(signers, now, expiries))
	for _, team := range slices.Sorted(maps.Keys(byTeam)) {
		if err := u.team(team, byTeam[team]); err != nil {
			return nil, nil, err
		}
	}
	for path, data := range changes {
		u.out[trust.TargetsDir+path] = data
	}
	if err := u.seal(); err != nil {
		return nil, nil, err
	}
	return u.out, removed, nil
}

// edits are what happens to the manifests of one team: nil is a removal.
type edits map[string]*metadata.TargetFiles

func group(changes map[string][]byte, removals []string) (map[string]edits, []string, error) {
	byTeam := map[string]edits{}
	add := func(path string, t *metadata.TargetFiles) error {
		team, _, err := trust.ParseTargetPath(path)
		if err != nil {
			return err
		}
		if byTeam[team] == nil {
			byTeam[team] = edits{}
		}
		byTeam[team][path] = t
		return nil
	}
	for path, data := range changes {
		if len(data) == 0 || len(data) > trust.MaxManifest {
			return nil, nil, fmt.Errorf("manifest %s has %d bytes; 1 to %d are allowed", path, len(data), trust.MaxManifest)
		}
		entry := metaOf(0, data)
		if err := add(path, &metadata.TargetFiles{Length: entry.Length, Hashes: entry.Hashes}); err != nil {
			return nil, nil, err
		}
	}
	var removed []string
	for _, path := range removals {
		if _, both := changes[path]; both {
			return nil, nil, fmt.Errorf("manifest %s is both changed and removed", path)
		}
		if err := add(path, nil); err != nil {
			return nil, nil, err
		}
		removed = append(removed, trust.TargetsDir+path)
	}
	slices.Sort(removed)
	return byTeam, slices.Compact(removed), nil
}

// update is one new state in the making.
type update struct {
	pen
	base     *Base
	snapshot *metadata.Metadata[metadata.SnapshotType]
	out      Files
}

func newUpdate(base *Base, p pen) *update {
	old := base.tuf.Snapshot.Signed
	next := metadata.Snapshot(p.expiry(metadata.SNAPSHOT))
	next.Signed.Version = old.Version + 1
	next.Signed.Meta = maps.Clone(old.Meta)
	return &update{pen: p, base: base, snapshot: next, out: Files{}}
}

func (u *update) team(name string, changed edits) error {
	m, d, err := u.base.team(name)
	if err != nil {
		return err
	}
	bins, err := binsOf(&m.Signed)
	if err != nil {
		return err
	}
	if bins != nil {
		return u.bins(name, bins, changed)
	}
	if !changed.apply(m.Signed.Targets) {
		return nil
	}
	if len(m.Signed.Targets) > MaxInRole {
		return u.split(m, d)
	}
	return u.sign(name, name, m, d.KeyIDs, d.Threshold)
}

// apply edits a role's list, and tells whether that changed it.
func (e edits) apply(targets map[string]*metadata.TargetFiles) bool {
	changed := false
	for path, t := range e {
		old := targets[path]
		switch {
		case t == nil && old != nil:
			delete(targets, path)
		case t != nil && (old == nil || !t.Equal(*old)):
			targets[path] = t
		default:
			continue
		}
		changed = true
	}
	return changed
}

// bins edits the bins that the changed paths hash to, and no other.
func (u *update) bins(team string, s *metadata.SuccinctRoles, changed edits) error {
	for bin, e := range changed.byBin(team) {
		m, err := u.base.role(bin, team)
		if err != nil {
			return err
		}
		if !e.apply(m.Signed.Targets) {
			continue
		}
		if err := u.sign(bin, team, m, s.KeyIDs, s.Threshold); err != nil {
			return err
		}
	}
	return nil
}

func (e edits) byBin(team string) map[string]edits {
	out := map[string]edits{}
	for path, t := range e {
		bin := trust.BinOf(team, path)
		if out[bin] == nil {
			out[bin] = edits{}
		}
		out[bin][path] = t
	}
	return out
}

// split moves a team's manifests into bins, signed by the team's own keys.
func (u *update) split(m *metadata.Metadata[metadata.TargetsType], d *metadata.DelegatedRole) error {
	lists := edits(m.Signed.Targets).byBin(d.Name)
	m.Signed.Targets = map[string]*metadata.TargetFiles{}
	keyring := map[string]*metadata.Key{}
	for _, id := range d.KeyIDs {
		keyring[id] = u.base.targets().Delegations.Keys[id]
	}
	s := &metadata.SuccinctRoles{
		KeyIDs: d.KeyIDs, Threshold: d.Threshold,
		BitLength: trust.BinBits, NamePrefix: trust.BinPrefix(d.Name),
	}
	m.Signed.Delegations = &metadata.Delegations{Keys: keyring, SuccinctRoles: s}
	for _, bin := range s.GetRoles() {
		b := metadata.Targets()
		b.Signed.Version = 0
		if entry := u.snapshot.Signed.Meta[bin+".json"]; entry != nil {
			b.Signed.Version = entry.Version
		}
		if list := lists[bin]; list != nil {
			b.Signed.Targets = list
		}
		if err := u.sign(bin, d.Name, b, s.KeyIDs, s.Threshold); err != nil {
			return err
		}
	}
	return u.sign(d.Name, d.Name, m, d.KeyIDs, d.Threshold)
}

// sign makes the next version of a role, with the keys of team.
func (u *update) sign(role, team string, m *metadata.Metadata[metadata.TargetsType], ids []string, threshold int) error {
	m.Signed.Version++
	m.Signed.Expires = u.expiry(team)
	data, err := encode(u.pen, team, m, ids, threshold)
	if err != nil {
		return err
	}
	put(u.out, &u.snapshot.Signed, role, m.Signed.Version, data)
	return nil
}

func (u *update) seal() error {
	return seal(u.pen, u.base.root(), u.snapshot, u.nextTimestamp(), u.out)
}

func (u *update) nextTimestamp() *metadata.Metadata[metadata.TimestampType] {
	t := metadata.Timestamp(u.expiry(metadata.TIMESTAMP))
	t.Signed.Version = u.base.tuf.Timestamp.Signed.Version + 1
	return t
}

// AddTeam delegates to one more team, with an empty first list. It takes the keys of
// targets, of the team, and the online ones.
func AddTeam(base *Base, team Team, signers keys.Signers, now time.Time, expiries v1.Expiries) (files Files, err error) {
	defer recovered(&err)
	u := newUpdate(base, newPen(signers, now, expiries))
	targets, err := base.targetsAnew()
	if err != nil {
		return nil, fmt.Errorf("cannot add team %s: %w", team.Name, err)
	}
	if targets.Signed.Delegations == nil {
		targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	}
	if err := delegate(&targets.Signed, team); err != nil {
		return nil, err
	}
	role := base.root().Roles[metadata.TARGETS]
	if err := u.sign(metadata.TARGETS, metadata.TARGETS, targets, role.KeyIDs, role.Threshold); err != nil {
		return nil, err
	}
	list := metadata.Targets()
	list.Signed.Version = 0
	if entry := u.snapshot.Signed.Meta[team.Name+".json"]; entry != nil {
		list.Signed.Version = entry.Version
	}
	if err := u.sign(team.Name, team.Name, list, idsOf(&targets.Signed, team.Name), team.Threshold); err != nil {
		return nil, err
	}
	if err := u.seal(); err != nil {
		return nil, err
	}
	return u.out, nil
}

// targetsAnew decodes targets.json, which Open verified, for changing.
func (b *Base) targetsAnew() (*metadata.Metadata[metadata.TargetsType], error) {
	data, err := b.read(metadata.TARGETS)
	if err != nil {
		return nil, err
	}
	return metadata.Targets().FromBytes(data)
}
