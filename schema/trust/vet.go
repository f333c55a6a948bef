package trust

import (
	"crypto/ed25519"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// What go-tuf leaves unchecked is checked here: the major version of the
// specification, versions below 1, key types, names and shape of delegations.

func vetHeader(role, spec string, version int64) error {
	if major, _, _ := strings.Cut(spec, "."); major != "1" {
		return fail(v1.ReasonMalformed, role, "it follows version %q of the TUF specification; only 1.x is understood", spec)
	}
	if version < 1 {
		return fail(v1.ReasonMalformed, role, "its version is %d; versions start at 1", version)
	}
	return nil
}

func vetRoot(root *metadata.RootType) error {
	if err := vetHeader(metadata.ROOT, root.SpecVersion, root.Version); err != nil {
		return err
	}
	if root.ConsistentSnapshot {
		return fail(v1.ReasonMalformed, metadata.ROOT, "consistent_snapshot is true; the signed branch keeps plain names")
	}
	for _, name := range metadata.TOP_LEVEL_ROLE_NAMES {
		r := root.Roles[name]
		if r == nil {
			return fail(v1.ReasonMalformed, metadata.ROOT, "role %s has no keys", name)
		}
		if err := vetKeys(metadata.ROOT, name, r.KeyIDs, r.Threshold, root.Keys); err != nil {
			return err
		}
	}
	return nil
}

// vetKeys checks the keys of one role that a delegator names.
func vetKeys(delegator, role string, ids []string, threshold int, keys map[string]*metadata.Key) error {
	if threshold < 1 || len(ids) == 0 {
		return fail(v1.ReasonMalformed, delegator, "role %s has %d keys and threshold %d; each must be at least 1", role, len(ids), threshold)
	}
	for _, id := range ids {
		if _, err := publicKey(keys[id]); err != "" {
			return fail(v1.ReasonMalformed, delegator, "key %q of role %s %s", id, role, err)
		}
	}
	return nil
}

// publicKey gives the raw Ed25519 key, or what is wrong with it.
func publicKey(key *metadata.Key) (ed25519.PublicKey, string) {
	if key == nil {
		return nil, "is not defined"
	}
	if key.Type != metadata.KeyTypeEd25519 || key.Scheme != metadata.KeySchemeEd25519 {
		return nil, "is not an ed25519 key"
	}
	raw, err := hex.DecodeString(key.Value.PublicKey)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, "is not 32 bytes in hex"
	}
	return raw, ""
}

// publicKeys are a vetted role's keys by value, sorted: two ids of one key count once.
func publicKeys(ids []string, keys map[string]*metadata.Key) []string {
	var out []string
	for _, id := range ids {
		if raw, err := publicKey(keys[id]); err == "" {
			out = append(out, hex.EncodeToString(raw))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func vetTimestamp(ts *metadata.TimestampType) error {
	if err := vetHeader(metadata.TIMESTAMP, ts.SpecVersion, ts.Version); err != nil {
		return err
	}
	if meta := ts.Meta[metadata.SNAPSHOT+".json"]; len(ts.Meta) != 1 || meta == nil || meta.Version < 1 {
		return fail(v1.ReasonMalformed, metadata.TIMESTAMP, "it must name a version of snapshot.json and nothing else")
	}
	return nil
}

func vetSnapshot(s *metadata.SnapshotType) error {
	if err := vetHeader(metadata.SNAPSHOT, s.SpecVersion, s.Version); err != nil {
		return err
	}
	for name, meta := range s.Meta {
		if meta == nil || meta.Version < 1 {
			return fail(v1.ReasonMalformed, metadata.SNAPSHOT, "its entry %q names no version", name)
		}
	}
	return nil
}

// vetTargets checks targets.json: delegations to teams, and no manifest.
func vetTargets(t *metadata.TargetsType) error {
	const role = metadata.TARGETS
	if err := vetHeader(role, t.SpecVersion, t.Version); err != nil {
		return err
	}
	if len(t.Targets) > 0 {
		return fail(v1.ReasonMalformed, role, "it lists manifests; only team roles may")
	}
	d := t.Delegations
	if d == nil {
		return nil
	}
	if d.SuccinctRoles != nil {
		return fail(v1.ReasonMalformed, role, "it delegates to hash bins; only team roles may")
	}
	if len(d.Roles) > MaxTeams {
		return fail(v1.ReasonMalformed, role, "it has %d delegations; at most %d are allowed", len(d.Roles), MaxTeams)
	}
	seen := make(map[string]bool, len(d.Roles))
	for _, r := range d.Roles {
		if err := CheckTeam(r.Name); err != nil {
			return &Error{Reason: v1.ReasonMalformed, Role: role, Err: err}
		}
		if seen[r.Name] {
			return fail(v1.ReasonMalformed, role, "it delegates to %s twice", r.Name)
		}
		seen[r.Name] = true
		if len(r.PathHashPrefixes) > 0 {
			return fail(v1.ReasonMalformed, role, "its delegation to %s uses path_hash_prefixes; use paths", r.Name)
		}
	}
	return nil
}

// vetTeam checks a team's role: it may delegate to its own bins, to nothing else.
func vetTeam(role string, t *metadata.TargetsType) error {
	if err := vetHeader(role, t.SpecVersion, t.Version); err != nil {
		return err
	}
	d := t.Delegations
	if d == nil {
		return nil
	}
	if len(d.Roles) > 0 {
		return fail(v1.ReasonMalformed, role, "it delegates to named roles; a team may only delegate to its hash bins")
	}
	if s := d.SuccinctRoles; s != nil {
		if s.BitLength != BinBits || s.NamePrefix != BinPrefix(role) {
			return fail(v1.ReasonMalformed, role, "its bins are %q with %d bits; they must be %q with %d",
				s.NamePrefix, s.BitLength, BinPrefix(role), BinBits)
		}
		return vetKeys(role, BinPrefix(role), s.KeyIDs, s.Threshold, d.Keys)
	}
	return nil
}

// vetBin checks a bin: it delegates to nobody.
func vetBin(role string, t *metadata.TargetsType) error {
	if t.Delegations != nil {
		return fail(v1.ReasonMalformed, role, "a hash bin can't delegate")
	}
	return vetHeader(role, t.SpecVersion, t.Version)
}
