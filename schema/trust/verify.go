package trust

import (
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Input is everything that a verification depends on.
type Input struct {
	// BootstrapRoot is the root.json that the node was installed with.
	BootstrapRoot []byte
	// Stored is the State of the last call, or the zero State.
	Stored State
	// Repository is the fetched state of the signed branch.
	Repository Files
	// Now is the clock's time; BuildTime that of the binary, or zero.
	Now, BuildTime time.Time
	// Team and Node are the node's own, from its configuration.
	Team, Node string
}

// Verify verifies a state of the signed branch for one node. Errors are *Error.
//
// The returned State is to be stored whether err is nil or not: roots that
// verified are kept in any case. Times are kept as far as verified metadata vouches
// for them, so that metadata found expired stays expired when the clock is set
// back, and yet one jump of the clock into the future can't brick the node.
// The floor and the last verified files move only when err is nil.
//
// The same Input gives the same answer. Passing the State of the last call in the same
// process makes it cheap to verify unchanged files again.
func Verify(in Input) (v Verified, next State, err error) {
	next = in.Stored
	ref := latest(in.Now, in.Stored.seen, in.BuildTime)
	if err := checkNames(in.Team, in.Node); err != nil {
		return Verified{}, next, err
	}
	if in.Stored.memo.covers(in) {
		if v, ok := in.Stored.memo.again(ref); ok {
			next.seen = ref
			return v, next, nil
		}
	}
	next.memo = nil // or it could outlive the roots that it was verified under
	c, err := openChain(in.BootstrapRoot, ref)
	if err != nil {
		return Verified{}, next, err
	}
	c.files = in.Repository
	stored, err := c.storedRoots(in.Stored.roots, 0)
	if err != nil {
		return Verified{}, next, err
	}
	fresh, err := c.repositoryRoots()
	next.roots = slices.Concat(stored, fresh)
	if err != nil {
		return Verified{}, next, err
	}
	c.floor = in.Stored.floor.under(c.timestampKeys())
	c.before = in.Stored.memo.under(in.BootstrapRoot, c.root().Version)
	set, v, err := c.refresh(in)
	if err != nil {
		next.seen = c.vouchedTime(in.Stored.seen)
		return Verified{}, next, err
	}
	next.seen, next.last, next.floor = ref, set, c.raised(set, v)
	next.memo = c.remember(in.BootstrapRoot, set, v)
	return v, next, nil
}

func latest(times ...time.Time) time.Time {
	return slices.MaxFunc(times, time.Time.Compare).UTC()
}

func checkNames(team, node string) error {
	if err := CheckTeam(team); err != nil {
		return &Error{Reason: v1.ReasonNotDelegated, Err: err}
	}
	if err := CheckNode(node); err != nil {
		return &Error{Reason: v1.ReasonNoManifest, Err: err}
	}
	return nil
}

// refresh verifies everything below the root.
func (c *chain) refresh(in Input) (*verifiedSet, Verified, error) {
	if err := c.checkRoot(); err != nil {
		return nil, Verified{}, err
	}
	var oldTimestamp, oldSnapshot []byte
	if last := in.Stored.last; last != nil && c.floor.Timestamp > 0 {
		oldTimestamp, oldSnapshot = last.Timestamp, last.Snapshot
	}
	set := &verifiedSet{Root: c.root().Version, Team: in.Team, Node: in.Node}
	var err error
	if set.Timestamp, err = c.timestamp(oldTimestamp); err != nil {
		return nil, Verified{}, err
	}
	if set.Snapshot, err = c.snapshot(oldSnapshot); err != nil {
		return nil, Verified{}, err
	}
	if set.Targets, err = c.targets(); err != nil {
		return nil, Verified{}, err
	}
	v, err := c.desired(set)
	return set, v, err
}

// desired finds and checks the manifest; it completes the set.
func (c *chain) desired(set *verifiedSet) (Verified, error) {
	path := TargetPath(set.Team, set.Node)
	target, roles, err := c.lookup(path)
	if err != nil {
		return Verified{}, err
	}
	data, m, err := c.manifest(path, target)
	if err != nil {
		return Verified{}, err
	}
	if m.Node != set.Node {
		return Verified{}, fail(v1.ReasonWrongNode, manifestRole, "it is that of node %q; this is %q", m.Node, set.Node)
	}
	if err := c.floor.checkGeneration(m, data); err != nil {
		return Verified{}, err
	}
	set.Roles, set.Manifest = roles, data
	return Verified{bytes: data, manifest: m, trust: c.status(roles), ref: c.tuf.RefTime}, nil
}

func (f floor) checkGeneration(m v1.NodeManifest, data []byte) error {
	switch {
	case f.Node != m.Node:
		return nil // another node's state: its generations say nothing of this one's
	case m.Generation < f.Generation:
		return fail(v1.ReasonRollback, manifestRole, "its generation is %d; generation %d was seen before", m.Generation, f.Generation)
	case m.Generation == f.Generation && f.Digest != digest(data):
		return fail(v1.ReasonRollback, manifestRole, "generation %d was seen before with other content", m.Generation)
	}
	return nil
}

// raised is the floor after everything verified.
func (c *chain) raised(set *verifiedSet, v Verified) floor {
	f := floor{
		TimestampKeys: c.timestampKeys(),
		Root:          max(c.floor.Root, c.root().Version),
		Timestamp:     c.tuf.Timestamp.Signed.Version,
		Snapshot:      c.tuf.Snapshot.Signed.Version,
		Targets:       c.tuf.Targets[metadata.TARGETS].Signed.Version,
		Roles:         map[string]int64{},
		Node:          set.Node,
		Generation:    v.manifest.Generation,
		Digest:        v.Digest(),
	}
	maps.Copy(f.Roles, c.floor.Roles)
	for _, r := range set.Roles {
		f.Roles[r.Name] = r.Version
	}
	return f
}

// vouchedTime is the latest time that a failed refresh may record: no later than
// a second after the first expiry of what verified. Without a verified timestamp nothing is
// recorded.
func (c *chain) vouchedTime(seen time.Time) time.Time {
	if c.tuf.Timestamp == nil {
		return seen
	}
	until := c.tuf.Timestamp.Signed.Expires
	if s := c.tuf.Snapshot; s != nil && s.Signed.Expires.Before(until) {
		until = s.Signed.Expires
	}
	for _, t := range c.tuf.Targets {
		if t.Signed.Expires.Before(until) {
			until = t.Signed.Expires
		}
	}
	until = until.Add(time.Second)
	if c.tuf.RefTime.Before(until) {
		until = c.tuf.RefTime
	}
	return latest(seen, until)
}
