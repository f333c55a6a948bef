package trust

import (
	"errors"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// rootFile is a verified root and its version.
type rootFile struct {
	Version int64  `json:"version"`
	Data    []byte `json:"data"`
}

// chain verifies metadata step by step, in the order of the specification's
// section 5. It holds go-tuf's state; what go-tuf doesn't check, it checks.
type chain struct {
	tuf   *trustedmetadata.TrustedMetadata
	files Files
	// floor is what the versions must not fall below.
	floor floor
	// before is what was verified before under this same root, or nil.
	before *memo
}

// openChain starts from the bootstrap root. At the zero time nothing is expired.
func openChain(bootstrap []byte, ref time.Time) (*chain, error) {
	c := &chain{}
	if len(bootstrap) == 0 {
		return nil, fail(v1.ReasonBootstrapRoot, metadata.ROOT, "the node has no bootstrap root")
	}
	if len(bootstrap) > MaxRoot {
		return nil, fail(v1.ReasonBootstrapRoot, metadata.ROOT, "the bootstrap root has more than %d bytes", MaxRoot)
	}
	err := guarded(metadata.ROOT, v1.ReasonMalformed, func() (err error) {
		if c.tuf, err = trustedmetadata.New(bootstrap); err != nil {
			return err
		}
		return vetRoot(&c.tuf.Root.Signed)
	})
	if err != nil {
		return nil, &Error{Reason: v1.ReasonBootstrapRoot, Role: metadata.ROOT, Err: err}
	}
	c.tuf.RefTime = ref
	return c, nil
}

func (c *chain) root() *metadata.RootType { return &c.tuf.Root.Signed }

// storedRoots walks the roots that were verified before, up to version last
// (0: all), and returns those above the bootstrap root. Starting from them and not from what the
// repository offers is what keeps a hidden newer root from reviving old keys.
func (c *chain) storedRoots(roots []rootFile, last int64) ([]rootFile, error) {
	var walked []rootFile
	for _, r := range roots {
		if r.Version <= c.root().Version {
			continue
		}
		if r.Version != c.root().Version+1 || last > 0 && r.Version > last {
			break
		}
		if err := c.nextRoot(r.Data); err != nil {
			return nil, &Error{Reason: v1.ReasonStateCorrupt, Role: metadata.ROOT, Err: err}
		}
		walked = append(walked, r)
	}
	return walked, nil
}

// repositoryRoots walks the repository's newer roots as far as they verify. The
// returned roots are good even if err isn't nil.
func (c *chain) repositoryRoots() (walked []rootFile, err error) {
	for range maxRoots {
		path := RootPath(c.root().Version + 1)
		if _, ok := c.files.ReadFile(path); !ok {
			break
		}
		data, err := read(c.files, metadata.ROOT, path, MaxRoot)
		if err != nil {
			return walked, err
		}
		if err := c.nextRoot(data); err != nil {
			return walked, err
		}
		walked = append(walked, rootFile{Version: c.root().Version, Data: data})
	}
	return walked, nil
}

// nextRoot moves to a root that the present one signed; on error the present one stays.
func (c *chain) nextRoot(data []byte) error {
	before := c.tuf.Root
	err := guarded(metadata.ROOT, v1.ReasonRollback, func() error {
		if _, err := c.tuf.UpdateRoot(data); err != nil {
			return err
		}
		return vetRoot(&c.tuf.Root.Signed)
	})
	if err != nil {
		c.tuf.Root = before
	}
	return err
}

// timestampKeys are the public keys that may sign the timestamp now.
func (c *chain) timestampKeys() []string {
	role := c.root().Roles[metadata.TIMESTAMP]
	return publicKeys(role.KeyIDs, c.root().Keys)
}

// checkRoot is the end of the root step: the final root is neither older than one
// that was seen nor expired.
func (c *chain) checkRoot() error {
	if v := c.root().Version; v < c.floor.Root {
		return fail(v1.ReasonRollback, metadata.ROOT, "its version is %d; version %d was seen before", v, c.floor.Root)
	}
	return c.checkExpiry(metadata.ROOT, c.root().Expires)
}

func (c *chain) checkExpiry(role string, expires time.Time) error {
	if c.tuf.RefTime.After(expires) {
		return fail(v1.ReasonExpired, role, "it expired at %s", expires.UTC().Format(time.RFC3339))
	}
	return nil
}

func checkFloor(role string, version, floor int64) error {
	if version < floor {
		return fail(v1.ReasonRollback, role, "its version is %d; version %d was seen before", version, floor)
	}
	return nil
}

// timestamp verifies timestamp.json and returns the bytes that count: the stored
// ones where the repository's have the same version. stored may be nil.
func (c *chain) timestamp(stored []byte) ([]byte, error) {
	const role = metadata.TIMESTAMP
	used := c.seedTimestamp(stored)
	data, err := read(c.files, role, MetadataPath(role), MaxTimestamp)
	if err != nil {
		return nil, err
	}
	var equal *metadata.ErrEqualVersionNumber
	err = guarded(role, v1.ReasonRollback, func() error {
		_, err := c.tuf.UpdateTimestamp(data)
		switch {
		case errors.As(err, &equal):
			return nil
		case err == nil || errors.Is(err, &metadata.ErrExpiredMetadata{}):
			used = data
		}
		return err
	})
	if err != nil && ReasonOf(err) != v1.ReasonExpired {
		return nil, err
	}
	ts := &c.tuf.Timestamp.Signed
	if err := vetTimestamp(ts); err != nil {
		return nil, err
	}
	if err := checkFloor(role, ts.Version, c.floor.Timestamp); err != nil {
		return nil, err
	}
	if err := checkFloor(metadata.SNAPSHOT, c.snapshotMeta().Version, c.floor.Snapshot); err != nil {
		return nil, err
	}
	return used, c.checkExpiry(role, ts.Expires)
}

// seedTimestamp loads the stored timestamp as the base of the rollback check. One that
// doesn't verify any more (its key was replaced) is left out; the floor stays.
func (c *chain) seedTimestamp(stored []byte) []byte {
	if stored == nil {
		return nil
	}
	if c.before != nil {
		c.tuf.Timestamp = c.before.tuf.Timestamp
		return stored
	}
	err := guarded(metadata.TIMESTAMP, v1.ReasonStateCorrupt, func() error {
		_, err := c.tuf.UpdateTimestamp(stored)
		if err != nil && !errors.Is(err, &metadata.ErrExpiredMetadata{}) {
			return err
		}
		return vetTimestamp(&c.tuf.Timestamp.Signed)
	})
	if err != nil {
		c.tuf.Timestamp = nil
		return nil
	}
	return stored
}

func (c *chain) snapshotMeta() *metadata.MetaFiles {
	return c.tuf.Timestamp.Signed.Meta[metadata.SNAPSHOT+".json"]
}

// snapshot verifies snapshot.json. stored may be nil.
func (c *chain) snapshot(stored []byte) ([]byte, error) {
	const role = metadata.SNAPSHOT
	c.seedSnapshot(stored)
	before := c.tuf.Snapshot
	data, err := read(c.files, role, MetadataPath(role), MaxSnapshot)
	if err != nil {
		return nil, err
	}
	err = guarded(role, v1.ReasonRollback, func() error {
		_, err := c.tuf.UpdateSnapshot(data, false)
		return err
	})
	switch {
	case err == nil:
	case c.tuf.Snapshot != before && ReasonOf(err) == v1.ReasonRollback:
		// It verified but isn't the version that the timestamp names.
		return nil, withReason(err, v1.ReasonMixAndMatch)
	case c.tuf.Snapshot == before && before != nil && missesEntry(err):
		return nil, withReason(err, v1.ReasonRollback)
	default:
		return nil, err
	}
	if err := vetSnapshot(&c.tuf.Snapshot.Signed); err != nil {
		return nil, err
	}
	return data, nil
}

// missesEntry recognises the one plain repository error of UpdateSnapshot that
// speaks of a verified snapshot: it lost an entry that an older one had.
func missesEntry(err error) bool {
	var plain *metadata.ErrRepository
	return errors.As(err, &plain)
}

// seedSnapshot loads the stored snapshot as the base of the rollback check of every entry.
func (c *chain) seedSnapshot(stored []byte) {
	if stored == nil || c.tuf.Timestamp == nil {
		return
	}
	if c.before != nil {
		c.tuf.Snapshot = c.before.tuf.Snapshot
		return
	}
	err := guarded(metadata.SNAPSHOT, v1.ReasonStateCorrupt, func() error {
		_, err := c.tuf.UpdateSnapshot(stored, true)
		if c.tuf.Snapshot == nil {
			return err
		}
		return vetSnapshot(&c.tuf.Snapshot.Signed)
	})
	if err != nil {
		c.tuf.Snapshot = nil
	}
}

// targets verifies targets.json.
func (c *chain) targets() ([]byte, error) {
	data, meta, err := c.load(metadata.TARGETS, metadata.ROOT, MaxTargets, c.floor.Targets)
	if err != nil {
		return nil, err
	}
	return data, vetTargets(meta)
}

// load verifies the metadata of a role below its delegator, against the snapshot.
func (c *chain) load(role, delegator string, limit int, floor int64) ([]byte, *metadata.TargetsType, error) {
	entry := c.tuf.Snapshot.Signed.Meta[role+".json"]
	if entry == nil {
		return nil, nil, fail(v1.ReasonMissing, role, "the snapshot has no entry for it")
	}
	if err := checkFloor(role, entry.Version, floor); err != nil {
		return nil, nil, err
	}
	data, err := read(c.files, role, MetadataPath(role), limit)
	if err != nil {
		return nil, nil, err
	}
	if m := c.before.role(role, delegator, data, c.tuf.Targets); m != nil &&
		m.Signed.Version == entry.Version && entry.VerifyLengthHashes(data) == nil {
		c.tuf.Targets[role] = m
		return data, &m.Signed, c.checkExpiry(role, m.Signed.Expires)
	}
	var signed *metadata.TargetsType
	err = guarded(role, v1.ReasonMixAndMatch, func() error {
		m, err := c.tuf.UpdateDelegatedTargets(data, role, delegator)
		if err != nil {
			return err
		}
		signed = &m.Signed
		return nil
	})
	return data, signed, err
}
