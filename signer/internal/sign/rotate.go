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

// Rotate gives a role other keys, and signs with them what the role signs. What the former keys
// signed counts no more. Who must sign is whoever says who may: root's keys for root, targets, snapshot
// and timestamp, and the keys of targets for a team. A new root is signed by a
// threshold of the former root keys and of the new ones, so that nodes can walk from one to the other.
//
// Signers are the keys at hand, former and new ones, by role. It takes those of the role,
// those that must sign, and, but for root and timestamp, the online ones.
func Rotate(base *Base, role string, to Authority, signers keys.Signers, now time.Time, expiries v1.Expiries) (files Files, err error) {
	defer recovered(&err)
	u := newUpdate(base, newPen(signers, now, expiries))
	if slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], role) {
		err = u.rotateTop(role, to)
	} else {
		err = u.rotateTeam(role, to)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot rotate the keys of %s: %w", role, err)
	}
	return u.out, nil
}

func (u *update) rotateTop(role string, to Authority) error {
	next, err := u.base.nextRoot(u.pen)
	if err != nil {
		return err
	}
	byID, ids, err := to.tufKeys(role)
	if err != nil {
		return err
	}
	root := &next.Signed
	root.Roles[role] = &metadata.Role{KeyIDs: ids, Threshold: to.Threshold}
	maps.Copy(root.Keys, byID)
	maps.DeleteFunc(root.Keys, func(id string, _ *metadata.Key) bool {
		for _, r := range root.Roles {
			if slices.Contains(r.KeyIDs, id) {
				return false
			}
		}
		return true
	})
	if err := u.signRoot(next); err != nil {
		return err
	}
	switch role {
	case metadata.ROOT:
		return nil
	case metadata.TIMESTAMP:
		timestamp := u.nextTimestamp()
		timestamp.Signed.Meta = u.base.tuf.Timestamp.Signed.Meta
		return sealTimestamp(u.pen, root, timestamp, u.out)
	case metadata.TARGETS:
		targets, err := u.base.targetsAnew()
		if err != nil {
			return err
		}
		if err := u.sign(metadata.TARGETS, metadata.TARGETS, targets, ids, to.Threshold); err != nil {
			return err
		}
	}
	return seal(u.pen, root, u.snapshot, u.nextTimestamp(), u.out)
}

// signRoot signs with a threshold of the former root's keys and of the new one's.
func (u *update) signRoot(next *metadata.Metadata[metadata.RootType]) error {
	before, after := u.base.root().Roles[metadata.ROOT], next.Signed.Roles[metadata.ROOT]
	for _, r := range []*metadata.Role{before, after} {
		if _, err := u.choose(metadata.ROOT, r.KeyIDs, r.Threshold); err != nil {
			return err
		}
	}
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(before.KeyIDs, after.KeyIDs))))
	data, err := encode(u.pen, metadata.ROOT, next, all, max(before.Threshold, after.Threshold))
	if err != nil {
		return err
	}
	u.out[trust.MetadataPath(metadata.ROOT)], u.out[trust.RootPath(next.Signed.Version)] = data, data
	return nil
}

func (u *update) rotateTeam(name string, to Authority) error {
	team, _, err := u.base.team(name)
	if err != nil {
		return err
	}
	bins, err := binsOf(&team.Signed)
	if err != nil {
		return err
	}
	byID, ids, err := to.tufKeys(name)
	if err != nil {
		return err
	}
	targets, err := u.base.targetsAnew()
	if err != nil {
		return err
	}
	d := delegationOf(&targets.Signed, name)
	d.KeyIDs, d.Threshold = ids, to.Threshold
	known := targets.Signed.Delegations.Keys
	maps.Copy(known, byID)
	maps.DeleteFunc(known, func(id string, _ *metadata.Key) bool {
		return !slices.ContainsFunc(targets.Signed.Delegations.Roles, func(r metadata.DelegatedRole) bool {
			return slices.Contains(r.KeyIDs, id)
		})
	})
	role := u.base.root().Roles[metadata.TARGETS]
	if err := u.sign(metadata.TARGETS, metadata.TARGETS, targets, role.KeyIDs, role.Threshold); err != nil {
		return err
	}
	if bins != nil {
		for _, bin := range bins.GetRoles() {
			b, err := u.base.role(bin, name)
			if err != nil {
				return err
			}
			if err := u.sign(bin, name, b, ids, to.Threshold); err != nil {
				return err
			}
		}
		team.Signed.Delegations.Keys = byID
		bins.KeyIDs, bins.Threshold = ids, to.Threshold
	}
	if err := u.sign(name, name, team, ids, to.Threshold); err != nil {
		return err
	}
	return u.seal()
}
