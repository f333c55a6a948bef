package sign

import (
	"fmt"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// Refresh signs again what is past half of its life, and whose keys
// are at hand: root, targets, team roles, bins, snapshot. The timestamp is always signed again. It
// changes no manifest. Roles that are due but whose keys aren't at hand are returned, sorted as
// they are delegated.
func Refresh(base *Base, signers keys.Signers, now time.Time, expiries v1.Expiries) (files Files, overdue []string, err error) {
	defer recovered(&err)
	u := newUpdate(base, newPen(signers, now, expiries))
	for role, again := range map[string]func() (bool, error){metadata.ROOT: u.refreshRoot, metadata.TARGETS: u.refreshTargets} {
		late, err := again()
		if err != nil {
			return nil, nil, err
		}
		if late {
			overdue = append(overdue, role)
		}
	}
	slices.Sort(overdue) // root, targets
	for _, team := range base.Teams() {
		late, err := u.refreshTeam(team)
		if err != nil {
			return nil, nil, err
		}
		if late {
			overdue = append(overdue, team)
		}
	}
	if u.listed() || u.due(metadata.SNAPSHOT, base.tuf.Snapshot.Signed.Expires) {
		return u.out, overdue, u.seal()
	}
	next := u.nextTimestamp()
	next.Signed.Meta = base.tuf.Timestamp.Signed.Meta
	return u.out, overdue, sealTimestamp(u.pen, base.root(), next, u.out)
}

// Due tells whether metadata of a role that expires then is past half of its life, so that it
// should be signed again.
func Due(role string, expires, now time.Time, expiries v1.Expiries) bool {
	return newPen(nil, now, expiries).due(role, expires)
}

func (p pen) due(role string, expires time.Time) bool {
	return expires.Sub(p.now) < p.life(role)/2
}

// listed tells whether something was signed that the snapshot lists: anything but root.
func (u *update) listed() bool {
	for path := range u.out {
		if path != trust.MetadataPath(metadata.ROOT) && path != trust.RootPath(u.base.root().Version+1) {
			return true
		}
	}
	return false
}

func (u *update) refreshRoot() (late bool, err error) {
	old := u.base.root()
	role := old.Roles[metadata.ROOT]
	if !u.due(metadata.ROOT, old.Expires) {
		return false, nil
	}
	if !u.has(metadata.ROOT, role.KeyIDs, role.Threshold) {
		return true, nil
	}
	next, err := u.base.nextRoot(u.pen)
	if err != nil {
		return false, err
	}
	data, err := encode(u.pen, metadata.ROOT, next, role.KeyIDs, role.Threshold)
	if err != nil {
		return false, err
	}
	u.out[trust.MetadataPath(metadata.ROOT)], u.out[trust.RootPath(next.Signed.Version)] = data, data
	return false, nil
}

// nextRoot is the root of the next version, for changing.
func (b *Base) nextRoot(p pen) (*metadata.Metadata[metadata.RootType], error) {
	data, err := b.tuf.Root.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("cannot copy root: %w", err)
	}
	next, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("cannot copy root: %w", err)
	}
	next.Signed.Version++
	next.Signed.Expires = p.expiry(metadata.ROOT)
	return next, nil
}

func (u *update) refreshTargets() (late bool, err error) {
	role := u.base.root().Roles[metadata.TARGETS]
	if !u.due(metadata.TARGETS, u.base.targets().Expires) {
		return false, nil
	}
	if !u.has(metadata.TARGETS, role.KeyIDs, role.Threshold) {
		return true, nil
	}
	targets, err := u.base.targetsAnew()
	if err != nil {
		return false, fmt.Errorf("cannot sign targets: %w", err)
	}
	return false, u.sign(metadata.TARGETS, metadata.TARGETS, targets, role.KeyIDs, role.Threshold)
}

// refreshTeam signs a team's due roles again, or tells that it can't.
func (u *update) refreshTeam(name string) (late bool, err error) {
	m, d, err := u.base.team(name)
	if err != nil {
		return false, err
	}
	again := func(role string, m *metadata.Metadata[metadata.TargetsType], ids []string, threshold int) error {
		if !u.due(name, m.Signed.Expires) {
			return nil
		}
		if !u.has(name, ids, threshold) {
			late = true
			return nil
		}
		return u.sign(role, name, m, ids, threshold)
	}
	bins, err := binsOf(&m.Signed)
	if err != nil {
		return false, err
	}
	if bins != nil {
		for _, bin := range bins.GetRoles() {
			b, err := u.base.role(bin, name)
			if err != nil {
				return false, err
			}
			if err := again(bin, b, bins.KeyIDs, bins.Threshold); err != nil {
				return false, err
			}
		}
	}
	return late, again(name, m, d.KeyIDs, d.Threshold)
}
