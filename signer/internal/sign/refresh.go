package sign

import (
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// Refresh signs again what is past half of its life, and whose keys
// are at hand: team roles, bins, snapshot. The timestamp is always signed again. It
// changes no manifest. Roles that are due but whose keys aren't at hand are returned, sorted as
// they are delegated.
func Refresh(base *Base, signers keys.Signers, now time.Time, expiries v1.Expiries) (files Files, overdue []string, err error) {
	defer recovered(&err)
	u := newUpdate(base, newPen(signers, now, expiries))
	for _, role := range []struct {
		name    string
		expires time.Time
	}{
		{metadata.ROOT, base.root().Expires},
		{metadata.TARGETS, base.targets().Expires},
	} {
		if u.due(role.name, role.expires) {
			overdue = append(overdue, role.name)
		}
	}
	for _, team := range base.Teams() {
		late, err := u.refreshTeam(team)
		if err != nil {
			return nil, nil, err
		}
		if late {
			overdue = append(overdue, team)
		}
	}
	if len(u.out) > 0 || u.due(metadata.SNAPSHOT, base.tuf.Snapshot.Signed.Expires) {
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
