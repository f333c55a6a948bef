package sign

import (
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/gpuaas/node-agent/schema/trust"
)

// Base is the published state that an update starts from. Only Open makes one, so
// what it holds was signed by the keys that the bootstrap root leads to. Expiry is
// no error here: signing again is how expired metadata is mended.
type Base struct {
	files trust.Files
	tuf   *trustedmetadata.TrustedMetadata
}

// Open verifies the metadata of a signed branch, down to targets.json. Team roles
// and bins are verified when an update needs them.
func Open(bootstrapRoot []byte, files trust.Files) (b *Base, err error) {
	defer recovered(&err)
	tuf, err := trustedmetadata.New(bootstrapRoot)
	if err != nil {
		return nil, fmt.Errorf("cannot use the bootstrap root: %w", err)
	}
	tuf.RefTime = time.Time{} // at the zero time nothing is expired
	b = &Base{files: files, tuf: tuf}
	for {
		data, ok := files.ReadFile(trust.RootPath(tuf.Root.Signed.Version + 1))
		if !ok {
			break
		}
		if _, err := tuf.UpdateRoot(data); err != nil {
			return nil, fmt.Errorf("cannot build on the signed branch: its root version %d: %w", tuf.Root.Signed.Version+1, err)
		}
	}
	for _, step := range []struct {
		role string
		load func([]byte) error
	}{
		{metadata.TIMESTAMP, func(d []byte) error { _, err := tuf.UpdateTimestamp(d); return err }},
		{metadata.SNAPSHOT, func(d []byte) error { _, err := tuf.UpdateSnapshot(d, false); return err }},
		{metadata.TARGETS, func(d []byte) error { _, err := tuf.UpdateTargets(d); return err }},
	} {
		data, err := b.read(step.role)
		if err != nil {
			return nil, err
		}
		if err := step.load(data); err != nil {
			return nil, fmt.Errorf("cannot build on the signed branch: its %s.json: %w", step.role, err)
		}
	}
	return b, nil
}

// recovered turns a panic of go-tuf over malformed metadata into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("cannot build on the signed branch: its metadata is malformed: %v", p)
	}
}

func (b *Base) read(role string) ([]byte, error) {
	data, ok := b.files.ReadFile(trust.MetadataPath(role))
	if !ok {
		return nil, fmt.Errorf("cannot build on the signed branch: it has no %s", trust.MetadataPath(role))
	}
	return data, nil
}

// NextGeneration is the version that the next snapshot will have: the generation to
// stamp on the manifests that change with it.
func NextGeneration(b *Base) int64 { return b.tuf.Snapshot.Signed.Version + 1 }

// Teams lists the delegated roles, in order.
func (b *Base) Teams() []string {
	var names []string
	if d := b.targets().Delegations; d != nil {
		for _, r := range d.Roles {
			names = append(names, r.Name)
		}
	}
	return names
}

func (b *Base) root() *metadata.RootType       { return &b.tuf.Root.Signed }
func (b *Base) targets() *metadata.TargetsType { return &b.tuf.Targets[metadata.TARGETS].Signed }

// role gives a verified team role or bin, for changing: each call decodes it anew.
func (b *Base) role(name, delegator string) (*metadata.Metadata[metadata.TargetsType], error) {
	data, err := b.read(name)
	if err != nil {
		return nil, err
	}
	m, err := b.tuf.UpdateDelegatedTargets(data, name, delegator)
	if err != nil {
		return nil, fmt.Errorf("cannot build on the signed branch: its %s.json: %w", name, err)
	}
	if m.Signed.Targets == nil {
		m.Signed.Targets = map[string]*metadata.TargetFiles{}
	}
	return m, nil
}

// team gives a team's role and who may sign it.
func (b *Base) team(name string) (*metadata.Metadata[metadata.TargetsType], *metadata.DelegatedRole, error) {
	d := delegationOf(b.targets(), name)
	if d == nil {
		return nil, nil, fmt.Errorf("targets.json doesn't delegate to team %q; the teams are %q. Adding one takes the targets key", name, b.Teams())
	}
	m, err := b.role(name, metadata.TARGETS)
	return m, d, err
}

func binsOf(team *metadata.TargetsType) (*metadata.SuccinctRoles, error) {
	if team.Delegations == nil {
		return nil, nil
	}
	s := team.Delegations.SuccinctRoles
	if s == nil || s.BitLength != trust.BinBits {
		return nil, errors.New("a team delegates to something else than 256 hash bins")
	}
	return s, nil
}
