package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Verified is a manifest that the release owners signed for this node, and by
// what it is believed. Only Verify and Restore make one. It is immutable and safe for concurrent
// use as long as nobody changes what its methods return.
type Verified struct {
	bytes    []byte
	manifest v1.NodeManifest
	trust    v1.TrustStatus
	ref      time.Time
}

// IsZero tells whether there is no manifest.
func (v Verified) IsZero() bool { return v.bytes == nil }

// Manifest is the desired state.
func (v Verified) Manifest() v1.NodeManifest { return v.manifest }

// Bytes are the manifest as signed.
func (v Verified) Bytes() []byte { return v.bytes }

// Digest is "sha256:<hex>" of Bytes.
func (v Verified) Digest() string { return digest(v.bytes) }

// Trust is what the node believes and until when. Of the top-level roles it tells
// the accepted keys of the newest root.
func (v Verified) Trust() v1.TrustStatus { return v.trust }

// ExpiredAt tells which metadata is the first to expire, when that is, and
// whether it has passed at now, or at a later time that was seen before.
func (v Verified) ExpiredAt(now time.Time) (role string, when time.Time, expired bool) {
	for _, name := range sortedKeys(v.trust.Expires) {
		if t := v.trust.Expires[name]; role == "" || t.Before(when) {
			role, when = name, t
		}
	}
	if v.ref.After(now) {
		now = v.ref
	}
	return role, when, role != "" && now.After(when)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// status describes the chain after a look-up that visited roles.
func (c *chain) status(roles []roleFile) v1.TrustStatus {
	s := v1.TrustStatus{
		RootVersion: c.root().Version,
		Versions:    map[string]int64{},
		Expires:     map[string]time.Time{},
		KeyIDs:      map[string][]string{},
	}
	add := func(role string, version int64, expires time.Time, ids []string) {
		s.Versions[role], s.Expires[role] = version, expires.UTC()
		s.KeyIDs[role] = slices.Sorted(slices.Values(ids))
	}
	root := c.root()
	add(metadata.ROOT, root.Version, root.Expires, root.Roles[metadata.ROOT].KeyIDs)
	ts, sn := &c.tuf.Timestamp.Signed, &c.tuf.Snapshot.Signed
	add(metadata.TIMESTAMP, ts.Version, ts.Expires, root.Roles[metadata.TIMESTAMP].KeyIDs)
	add(metadata.SNAPSHOT, sn.Version, sn.Expires, root.Roles[metadata.SNAPSHOT].KeyIDs)
	targets := &c.tuf.Targets[metadata.TARGETS].Signed
	add(metadata.TARGETS, targets.Version, targets.Expires, root.Roles[metadata.TARGETS].KeyIDs)
	for _, r := range roles {
		t := &c.tuf.Targets[r.Name].Signed
		add(r.Name, t.Version, t.Expires, c.delegatedKeyIDs(r.Name))
	}
	return s
}

func (c *chain) delegatedKeyIDs(role string) []string {
	for _, d := range c.tuf.Targets[metadata.TARGETS].Signed.Delegations.Roles {
		if d.Name == role {
			return d.KeyIDs
		}
	}
	for _, t := range c.tuf.Targets {
		if d := t.Signed.Delegations; d != nil && d.SuccinctRoles != nil && d.SuccinctRoles.IsDelegatedRole(role) {
			return d.SuccinctRoles.KeyIDs
		}
	}
	return nil
}
