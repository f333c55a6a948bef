package trust

import (
	"time"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Restore gives what was last verified for this node from stored bytes alone,
// verifying them again: what an agent enforces after a restart while it can't
// reach the repository. Expiry is no error; ask ExpiredAt.
//
// The *Error says NoManifest where nothing was verified for this node yet, and StateCorrupt where
// the stored bytes don't verify.
func Restore(bootstrapRoot []byte, stored State, team, node string, now time.Time) (Verified, error) {
	set := stored.last
	if set == nil || set.Team != team || set.Node != node {
		return Verified{}, fail(v1.ReasonNoManifest, manifestRole, "nothing was verified for node %q of team %q yet", node, team)
	}
	c, err := openChain(bootstrapRoot, time.Time{})
	if err != nil {
		return Verified{}, err
	}
	// Later roots may have replaced keys. What those keys signed was verified
	// under the root of its time, and is enforced until something newer verifies.
	if _, err := c.storedRoots(stored.roots, set.Root); err != nil {
		return Verified{}, err
	}
	c.files = set.files()
	v, err := c.restore(set)
	if err != nil {
		return Verified{}, &Error{Reason: v1.ReasonStateCorrupt, Err: err}
	}
	newest, err := openChain(bootstrapRoot, time.Time{})
	if err != nil {
		return Verified{}, err
	}
	if _, err := newest.storedRoots(stored.roots, 0); err != nil {
		return Verified{}, err
	}
	c.tuf.Root = newest.tuf.Root
	v.trust = c.status(set.Roles)
	v.ref = latest(now, stored.seen)
	return v, nil
}

func (c *chain) restore(set *verifiedSet) (Verified, error) {
	if _, err := c.timestamp(nil); err != nil {
		return Verified{}, err
	}
	if _, err := c.snapshot(nil); err != nil {
		return Verified{}, err
	}
	if _, err := c.targets(); err != nil {
		return Verified{}, err
	}
	again := *set
	return c.desired(&again)
}
