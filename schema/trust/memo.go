package trust

import (
	"bytes"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// memo is what a Verify in this process found good. A State carries it along so that
// the next Verify needn't decode and verify the same bytes once more: most
// commits of the signed branch concern other nodes.
type memo struct {
	bootstrap []byte
	set       *verifiedSet
	files     mapFiles
	tuf       *trustedmetadata.TrustedMetadata
	verified  Verified
}

func (c *chain) remember(bootstrap []byte, set *verifiedSet, v Verified) *memo {
	return &memo{bootstrap: bytes.Clone(bootstrap), set: set, files: set.files(), tuf: c.tuf, verified: v}
}

// covers tells whether in is about the very files that m remembers, all of them.
func (m *memo) covers(in Input) bool {
	if m == nil || m.set.Team != in.Team || m.set.Node != in.Node || !bytes.Equal(m.bootstrap, in.BootstrapRoot) {
		return false
	}
	if _, ok := in.Repository.ReadFile(RootPath(m.set.Root + 1)); ok {
		return false
	}
	for path, known := range m.files {
		if data, ok := in.Repository.ReadFile(path); !ok || !bytes.Equal(data, known) {
			return false
		}
	}
	return true
}

// again answers for unchanged files, or not at all if something expired meanwhile.
func (m *memo) again(ref time.Time) (Verified, bool) {
	v := m.verified
	v.ref = ref
	_, _, expired := v.ExpiredAt(ref)
	return v, !expired
}

// under is m if what it remembers was verified under this same root, else nil.
func (m *memo) under(bootstrap []byte, root int64) *memo {
	if m == nil || m.set.Root != root || !bytes.Equal(m.bootstrap, bootstrap) {
		return nil
	}
	return m
}

// role gives the metadata of a role if these bytes were verified before, by a
// delegator that hasn't changed since. now are the roles that count now.
func (m *memo) role(name, delegator string, data []byte, now map[string]*metadata.Metadata[metadata.TargetsType]) *metadata.Metadata[metadata.TargetsType] {
	if m == nil || m.tuf.Targets[name] == nil || !bytes.Equal(m.files[MetadataPath(name)], data) {
		return nil
	}
	if delegator != metadata.ROOT && now[delegator] != m.tuf.Targets[delegator] {
		return nil
	}
	return m.tuf.Targets[name]
}
