package sign

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
)

// Inspection describes a signed branch in plain words.
type Inspection struct {
	Roles []RoleInfo `json:"roles" yaml:"roles"`
	// Manifests is how many nodes have a signed manifest.
	Manifests int `json:"manifests" yaml:"manifests"`
}

// RoleInfo describes one role: who can sign what, and until when it is good.
type RoleInfo struct {
	Name    string    `json:"name" yaml:"name"`
	Version int64     `json:"version" yaml:"version"`
	Expires time.Time `json:"expires" yaml:"expires"`
	// KeyIDs may sign the role; Threshold of them must.
	KeyIDs    []string `json:"keyIDs" yaml:"keyIDs"`
	Threshold int      `json:"threshold" yaml:"threshold"`
	// SignedBy are the key ids of the signatures that are there, unverified.
	SignedBy []string `json:"signedBy" yaml:"signedBy"`
	// Signs says what the role is for.
	Signs string `json:"signs" yaml:"signs"`
	// Team tells that targets delegates to the role. Manifests and Bins are counts of it.
	Team      bool `json:"team,omitempty" yaml:"team,omitempty"`
	Manifests int  `json:"manifests,omitempty" yaml:"manifests,omitempty"`
	Bins      int  `json:"bins,omitempty" yaml:"bins,omitempty"`
}

// Inspect describes what the files say. It verifies nothing: trust.VerifyAll does.
func Inspect(files trust.Files) (in Inspection, err error) {
	defer recovered(&err)
	root, err := decode[metadata.RootType](files, metadata.ROOT)
	if err != nil {
		return in, err
	}
	top := func(name, signs string, version int64, expires time.Time, sigs []metadata.Signature) {
		r := root.Signed.Roles[name]
		in.Roles = append(in.Roles, RoleInfo{
			Name: name, Version: version, Expires: expires, KeyIDs: r.KeyIDs, Threshold: r.Threshold,
			SignedBy: signedBy(sigs), Signs: signs,
		})
	}
	top(metadata.ROOT, "the keys and thresholds of root, targets, snapshot and timestamp", root.Signed.Version, root.Signed.Expires, root.Signatures)
	targets, err := decode[metadata.TargetsType](files, metadata.TARGETS)
	if err != nil {
		return in, err
	}
	top(metadata.TARGETS, "which keys may sign for which team", targets.Signed.Version, targets.Signed.Expires, targets.Signatures)
	if d := targets.Signed.Delegations; d != nil {
		for _, team := range d.Roles {
			info, err := inspectTeam(files, team)
			if err != nil {
				return in, err
			}
			in.Roles, in.Manifests = append(in.Roles, info), in.Manifests+info.Manifests
		}
	}
	snapshot, err := decode[metadata.SnapshotType](files, metadata.SNAPSHOT)
	if err != nil {
		return in, err
	}
	top(metadata.SNAPSHOT, "which versions of the metadata belong together", snapshot.Signed.Version, snapshot.Signed.Expires, snapshot.Signatures)
	timestamp, err := decode[metadata.TimestampType](files, metadata.TIMESTAMP)
	if err != nil {
		return in, err
	}
	top(metadata.TIMESTAMP, "which snapshot is the newest", timestamp.Signed.Version, timestamp.Signed.Expires, timestamp.Signatures)
	return in, nil
}

// inspectTeam counts a team's manifests; its expiry is that of the first of its
// files to expire.
func inspectTeam(files trust.Files, d metadata.DelegatedRole) (RoleInfo, error) {
	m, err := decode[metadata.TargetsType](files, d.Name)
	if err != nil {
		return RoleInfo{}, err
	}
	info := RoleInfo{
		Name: d.Name, Team: true, Version: m.Signed.Version, Expires: m.Signed.Expires, KeyIDs: d.KeyIDs, Threshold: d.Threshold,
		SignedBy: signedBy(m.Signatures), Signs: "manifests at " + strings.Join(d.Paths, ", "), Manifests: len(m.Signed.Targets),
	}
	bins, err := binsOf(&m.Signed)
	if err != nil || bins == nil {
		return info, err
	}
	for _, name := range bins.GetRoles() {
		b, err := decode[metadata.TargetsType](files, name)
		if err != nil {
			return RoleInfo{}, err
		}
		info.Bins++
		info.Manifests += len(b.Signed.Targets)
		if b.Signed.Expires.Before(info.Expires) {
			info.Expires = b.Signed.Expires
		}
	}
	return info, nil
}

func decode[T metadata.Roles](files trust.Files, role string) (*metadata.Metadata[T], error) {
	path := trust.MetadataPath(role)
	data, ok := files.ReadFile(path)
	if !ok {
		return nil, fmt.Errorf("the signed branch has no %s", path)
	}
	m, err := new(metadata.Metadata[T]).FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return m, nil
}

func signedBy(sigs []metadata.Signature) []string {
	var ids []string
	for _, s := range sigs {
		ids = append(ids, s.KeyID)
	}
	slices.Sort(ids)
	return ids
}
