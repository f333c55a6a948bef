package trust

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// AllOptions of VerifyAll.
type AllOptions struct {
	// Now is the clock's time.
	Now time.Time
	// Previous is what is published now, or nil. With it the check costs as
	// much as the change: bins whose entry in the snapshot didn't change aren't read,
	// manifests whose signed hash didn't change aren't either, and nothing may fall
	// below what is published.
	Previous Files
	// HashesOnly leaves the manifests undecoded.
	HashesOnly bool
}

// Summary counts what VerifyAll saw.
type Summary struct {
	Root, Timestamp, Snapshot int64 // versions
	Teams, Bins               int   // of all teams; bins that were read
	Manifests                 int   // manifests that were checked
}

// VerifyAll verifies a whole signed branch as every node of it would: what a signer
// runs on its own output before publishing it. Errors are *Error.
func VerifyAll(bootstrapRoot []byte, files Files, opts AllOptions) (Summary, error) {
	c, err := openChain(bootstrapRoot, latest(opts.Now))
	if err != nil {
		return Summary{}, err
	}
	c.files = files
	if _, err := c.repositoryRoots(); err != nil {
		return Summary{}, err
	}
	a := &audit{chain: c, opts: opts}
	if err := a.newestRoot(); err != nil {
		return Summary{}, err
	}
	if err := a.online(); err != nil {
		return Summary{}, err
	}
	if _, err := c.targets(); err != nil {
		return Summary{}, err
	}
	if d := c.tuf.Targets[metadata.TARGETS].Signed.Delegations; d != nil {
		for _, team := range d.Roles {
			if err := a.team(team); err != nil {
				return Summary{}, err
			}
		}
	}
	return a.sum, nil
}

// audit is one run of VerifyAll.
type audit struct {
	*chain
	opts AllOptions
	sum  Summary
}

func (a *audit) previous(path string) []byte {
	if a.opts.Previous == nil {
		return nil
	}
	data, _ := a.opts.Previous.ReadFile(path)
	return data
}

// newestRoot checks that root.json is the newest root: it is what people and
// installers copy.
func (a *audit) newestRoot() error {
	a.sum.Root = a.root().Version
	newest, err := read(a.files, metadata.ROOT, RootPath(a.sum.Root), MaxRoot)
	if err != nil {
		return err
	}
	current, err := read(a.files, metadata.ROOT, MetadataPath(metadata.ROOT), MaxRoot)
	if err != nil {
		return err
	}
	if !bytes.Equal(newest, current) {
		return fail(v1.ReasonMixAndMatch, metadata.ROOT, "root.json differs from %s", RootPath(a.sum.Root))
	}
	return a.checkRoot()
}

func (a *audit) online() error {
	old := a.previous(MetadataPath(metadata.TIMESTAMP))
	used, err := a.timestamp(old)
	if err != nil {
		return err
	}
	if data, _ := a.files.ReadFile(MetadataPath(metadata.TIMESTAMP)); !bytes.Equal(used, data) {
		return fail(v1.ReasonRollback, metadata.TIMESTAMP, "version %d is published already with other content", a.tuf.Timestamp.Signed.Version)
	}
	if _, err := a.snapshot(a.previous(MetadataPath(metadata.SNAPSHOT))); err != nil {
		return err
	}
	a.sum.Timestamp, a.sum.Snapshot = a.tuf.Timestamp.Signed.Version, a.tuf.Snapshot.Signed.Version
	return nil
}

func (a *audit) team(d metadata.DelegatedRole) error {
	a.sum.Teams++
	team, file, err := a.loadTeam(d)
	if err != nil {
		return err
	}
	if err := a.list(d.Name, file, team); err != nil {
		return err
	}
	if team.Delegations == nil || team.Delegations.SuccinctRoles == nil {
		return nil
	}
	published := a.publishedEntries()
	for _, name := range team.Delegations.SuccinctRoles.GetRoles() {
		entry := a.tuf.Snapshot.Signed.Meta[name+".json"]
		if entry != nil && sameEntry(entry, published[name+".json"]) {
			continue
		}
		a.sum.Bins++
		bin, file, err := a.loadBin(d.Name, name)
		if err != nil {
			return err
		}
		if err := a.list(d.Name, file, bin); err != nil {
			return err
		}
	}
	return nil
}

// publishedEntries are the entries of the published snapshot. It needs no verifying
// here: believing it wrongly only means to read too little of what nodes verify anyway.
func (a *audit) publishedEntries() map[string]*metadata.MetaFiles {
	var s struct {
		Signed struct {
			Meta map[string]*metadata.MetaFiles `json:"meta"`
		} `json:"signed"`
	}
	if json.Unmarshal(a.previous(MetadataPath(metadata.SNAPSHOT)), &s) != nil {
		return nil
	}
	return s.Signed.Meta
}

func sameEntry(a, b *metadata.MetaFiles) bool {
	return b != nil && a.Version == b.Version && a.Length == b.Length && a.Hashes.Equal(b.Hashes)
}

// list checks every manifest that a role signs, except those that it signed alike before.
func (a *audit) list(team string, role roleFile, signed *metadata.TargetsType) error {
	var old struct {
		Signed struct {
			Targets map[string]*metadata.TargetFiles `json:"targets"`
		} `json:"signed"`
	}
	// The same holds here as for publishedEntries.
	if json.Unmarshal(a.previous(MetadataPath(role.Name)), &old) != nil {
		old.Signed.Targets = nil
	}
	for _, path := range sortedKeys(signed.Targets) {
		target := signed.Targets[path]
		if err := checkPlace(team, role.Name, path); err != nil {
			return err
		}
		if before := old.Signed.Targets[path]; before != nil && target.Equal(*before) {
			continue
		}
		if err := a.target(path, target); err != nil {
			return err
		}
	}
	return nil
}

// checkPlace tells whether a role is the one in which nodes look for a path.
func checkPlace(team, role, path string) error {
	owner, _, err := ParseTargetPath(path)
	if err != nil {
		return &Error{Reason: v1.ReasonMalformed, Role: role, Err: err}
	}
	if owner != team || role != team && role != BinOf(team, path) {
		return fail(v1.ReasonNotDelegated, role, "it signs %s, which nodes look for elsewhere", path)
	}
	return nil
}

func (a *audit) target(path string, signed *metadata.TargetFiles) error {
	a.sum.Manifests++
	if a.opts.HashesOnly {
		data, err := read(a.files, manifestRole, TargetsDir+path, MaxManifest)
		if err != nil {
			return err
		}
		return guarded(manifestRole, v1.ReasonMalformed, func() error { return signed.VerifyLengthHashes(data) })
	}
	data, m, err := a.manifest(path, signed)
	if err != nil {
		return err
	}
	if _, node, err := ParseTargetPath(path); err != nil || node != m.Node {
		return fail(v1.ReasonWrongNode, manifestRole, "%s is the manifest of node %q", path, m.Node)
	}
	old := a.previous(TargetsDir + path)
	if old == nil || bytes.Equal(old, data) {
		return nil // new, or listed by another role since the team moved to bins
	}
	// A published manifest that can't be read any more sets no floor.
	if before, err := v1.DecodeManifest(TargetsDir+path, old); err == nil && m.Generation <= before.Generation {
		return fail(v1.ReasonRollback, manifestRole, "%s changed, but its generation %d isn't above the published %d", path, m.Generation, before.Generation)
	}
	return nil
}
