package trust_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// delegation edits how targets.json delegates to the team, and publishes it.
func delegation(edit func(r *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole)) func(*trusttest.Repo, *trust.Input, trusttest.Files) {
	return func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
		d := r.Targets["targets"].Signed.Delegations
		edit(r, d, &d.Roles[0])
		r.Targets["targets"].Signed.Version++
		r.SaveTargets("targets")
		r.Targets[team].Signed.Version++
		r.SaveTargets(team)
		r.Seal()
	}
}

func TestAttackSignatures(t *testing.T) {
	second := trusttest.Key("second fleet key")
	addKey := func(r *trusttest.Repo, d *metadata.Delegations, id string, public ed25519.PublicKey) {
		key, err := metadata.KeyFromPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		if id == "" {
			id, _ = key.ID()
		}
		d.Keys[id] = key
		d.Roles[0].KeyIDs = append(d.Roles[0].KeyIDs, id)
	}
	runAttacks(t, []attack{
		{name: "under threshold", reason: v1.ReasonUnsigned, role: "fleet", do: delegation(func(r *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			addKey(r, d, "", second.Public().(ed25519.PublicKey))
			role.Threshold = 2
		})},
		{name: "one key under two ids", reason: v1.ReasonUnsigned, role: "fleet", do: func(r *trusttest.Repo, in *trust.Input, old trusttest.Files) {
			delegation(func(r *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
				addKey(r, d, "alias", trusttest.Key(team).Public().(ed25519.PublicKey))
				role.Threshold = 2
			})(r, in, old)
			// The same signature, under each of the ids.
			m := r.Targets[team]
			m.Signatures = append(m.Signatures, metadata.Signature{KeyID: "alias", Signature: m.Signatures[0].Signature})
			rewrite(t, r, team, m)
		}},
		{name: "one key listed twice", reason: v1.ReasonUnsigned, role: "fleet", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.KeyIDs = append(role.KeyIDs, role.KeyIDs[0])
			role.Threshold = 2
		})},
		{name: "one signature twice", reason: v1.ReasonMalformed, role: "fleet", do: func(r *trusttest.Repo, in *trust.Input, old trusttest.Files) {
			delegation(func(r *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
				addKey(r, d, "", second.Public().(ed25519.PublicKey))
				role.Threshold = 2
			})(r, in, old)
			m := r.Targets[team]
			m.Signatures = append(m.Signatures, m.Signatures[0])
			rewrite(t, r, team, m)
		}},
		{name: "unsigned", reason: v1.ReasonUnsigned, role: "fleet", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			m := r.Targets[team]
			m.Signed.Version++
			m.ClearSignatures()
			rewrite(t, r, team, m)
		}},
		{name: "unsigned timestamp", reason: v1.ReasonUnsigned, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Version++
			r.Timestamp.ClearSignatures()
			data, err := r.Timestamp.ToBytes(false)
			if err != nil {
				t.Fatal(err)
			}
			r.Write("metadata/timestamp.json", data)
		}},
		{name: "threshold 0", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.Threshold = 0
		})},
		{name: "no keys", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.KeyIDs = nil
		})},
		{name: "an undefined key", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.KeyIDs = []string{"nobody"}
		})},
		{name: "a short key, which panics in Ed25519", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			d.Keys[role.KeyIDs[0]].Value.PublicKey = "abcd"
		})},
		{name: "a null key", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			d.Keys[role.KeyIDs[0]] = nil
		})},
		{name: "wrong key type", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if d.Keys[role.KeyIDs[0]], err = metadata.KeyFromPublicKey(k.Public()); err != nil {
				t.Fatal(err)
			}
		})},
		{name: "the team's key signs targets.json", reason: v1.ReasonUnsigned, role: "targets", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("targets", trusttest.Key(team))
			r.Seal()
		}},
		{name: "the online keys sign a root", reason: v1.ReasonUnsigned, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Root.Signed.Version++
			r.SaveRoot(trusttest.Key("timestamp"), trusttest.Key("snapshot"))
		}},
		{name: "a new root not signed by itself", reason: v1.ReasonUnsigned, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Root.Signed.Version++
			r.SetKeys("root", 1, evil)
			r.SaveRoot(trusttest.Key("root"))
		}},
		{name: "another role's metadata in its place", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Write("metadata/timestamp.json", r.Files()["metadata/snapshot.json"])
		}},
	})
}

// rewrite publishes a role with the signatures that it has.
func rewrite(t *testing.T, r *trusttest.Repo, role string, m *metadata.Metadata[metadata.TargetsType]) {
	t.Helper()
	data, err := m.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	r.Write(trust.MetadataPath(role), data)
	r.Seal()
}

func TestAttackDelegations(t *testing.T) {
	inTeam := func(edit func(m *metadata.TargetsType)) func(*trusttest.Repo, *trust.Input, trusttest.Files) {
		return func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			edit(&r.Targets[team].Signed)
			r.Targets[team].Signed.Version++
			r.SaveTargets(team)
			r.Seal()
		}
	}
	loop := func(to string) func(*metadata.TargetsType) {
		return func(m *metadata.TargetsType) {
			m.Targets = map[string]*metadata.TargetFiles{}
			m.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{
				{Name: to, KeyIDs: []string{"x"}, Threshold: 1, Paths: []string{"nodes/*/*/*.yaml"}},
			}}
		}
	}
	bins := func(bits int, prefix string) func(*metadata.TargetsType) {
		return func(m *metadata.TargetsType) {
			m.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, SuccinctRoles: &metadata.SuccinctRoles{
				KeyIDs: []string{"x"}, Threshold: 1, BitLength: bits, NamePrefix: prefix,
			}}
		}
	}
	runAttacks(t, []attack{
		{name: "a loop to itself", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(loop("fleet"))},
		{name: "a loop to targets", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(loop("targets"))},
		{name: "deeper delegation", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(loop("squad"))},
		{name: "bins of another number", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(bins(10, "fleet-bin"))},
		{name: "bins of another team", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(bins(8, "other-bin"))},
		{name: "bins without their key", reason: v1.ReasonMalformed, role: "fleet", do: inTeam(bins(8, "fleet-bin"))},
		{name: "a bin that delegates", reason: v1.ReasonMalformed, role: trust.BinOf(team, trust.TargetPath(team, node)), do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			bin := r.UseBins(node)
			r.Targets[bin].Signed.Version++
			r.Targets[bin].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
			r.SaveTargets(bin)
			r.Seal()
		}},
		{name: "a bin signed by another key", reason: v1.ReasonUnsigned, role: trust.BinOf(team, trust.TargetPath(team, node)), do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			bin := r.UseBins(node)
			r.Targets[bin].Signed.Version++
			r.SaveTargets(bin, evil)
			r.Seal()
		}},
		{name: "bins in targets.json", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(r *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			d.SuccinctRoles = &metadata.SuccinctRoles{KeyIDs: role.KeyIDs, Threshold: 1, BitLength: 8, NamePrefix: "fleet-bin"}
			d.Roles = nil
		})},
		{name: "a manifest in targets.json", reason: v1.ReasonMalformed, role: "targets", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Put("targets", node, trusttest.Manifest(node, 9, "from the top"))
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("targets")
			r.Seal()
		}},
		{name: "one team twice", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, d *metadata.Delegations, role *metadata.DelegatedRole) {
			d.Roles = append(d.Roles, *role)
		})},
		{name: "hash prefixes", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.Paths, role.PathHashPrefixes = nil, []string{"00"}
		})},
		{name: "too many delegations", reason: v1.ReasonMalformed, role: "targets", do: delegation(func(_ *trusttest.Repo, d *metadata.Delegations, _ *metadata.DelegatedRole) {
			for i := range trust.MaxTeams {
				d.Roles = append(d.Roles, metadata.DelegatedRole{Name: "t" + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)), Threshold: 1})
			}
		})},
		{name: "a star that would cross folders", reason: v1.ReasonNotDelegated, role: "targets", do: delegation(func(_ *trusttest.Repo, _ *metadata.Delegations, role *metadata.DelegatedRole) {
			role.Paths = []string{"nodes/*.yaml", "*", "nodes/fleet/*"}
		})},
	})
}

// Null entries and missing parts panic in go-tuf. Each is signed by the right keys here.
func TestAttackMalformed(t *testing.T) {
	runAttacks(t, []attack{
		{name: "null target", reason: v1.ReasonMalformed, role: "fleet", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Targets[team].Signed.Targets["x"] = nil
			r.Targets[team].Signed.Version++
			r.SaveTargets(team)
			r.Seal()
		}},
		{name: "null entry in the snapshot", reason: v1.ReasonMalformed, role: "snapshot", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Snapshot.Signed.Meta["fleet.json"] = nil
			r.Snapshot.Signed.Version++
			r.SaveSnapshot()
			r.SealTimestamp()
		}},
		{name: "no entry in the timestamp", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Meta = map[string]*metadata.MetaFiles{}
			r.Timestamp.Signed.Version++
			r.SaveTimestamp()
		}},
		{name: "two entries in the timestamp", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Meta["targets.json"] = &metadata.MetaFiles{Version: 1}
			r.Timestamp.Signed.Version++
			r.SaveTimestamp()
		}},
		{name: "null role in a root", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.NextRoot(func() { r.Root.Signed.Roles["timestamp"] = nil })
		}},
		{name: "a root without the role root", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.NextRoot(func() { delete(r.Root.Signed.Roles, "root") })
		}},
		{name: "a root with consistent snapshots", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.NextRoot(func() { r.Root.Signed.ConsistentSnapshot = true })
		}},
		{name: "a root of TUF 2", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.NextRoot(func() { r.Root.Signed.SpecVersion = "2.0.0" })
		}},
		{name: "a root whose keys are short", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.NextRoot(func() {
				for _, k := range r.Root.Signed.Keys {
					k.Value.PublicKey = "00"
				}
			})
		}},
		{name: "a negative version", reason: v1.ReasonMalformed, role: "fleet", fresh: true, do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Targets[team].Signed.Version = -1
			r.SaveTargets(team)
			r.Seal()
			r.Snapshot.Signed.Meta["fleet.json"].Version = 1
			r.Targets[team].Signed.Version = 1
			r.Targets[team].Signed.SpecVersion = "9"
			r.SaveTargets(team)
			r.Seal()
		}},
		{name: "version 0 in the snapshot", reason: v1.ReasonMalformed, role: "snapshot", fresh: true, do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Targets[team].Signed.Version = 0
			r.SaveTargets(team)
			r.Seal()
		}},
		{name: "not JSON", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Write("metadata/timestamp.json", []byte("<html>login</html>"))
		}},
		{name: "deep JSON", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Write("metadata/timestamp.json", bytes.Repeat([]byte("["), trust.MaxTimestamp))
		}},
		{name: "fractions where numbers are signed", reason: v1.ReasonMalformed, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			var m map[string]any
			if err := json.Unmarshal(r.Files()["metadata/timestamp.json"], &m); err != nil {
				t.Fatal(err)
			}
			m["signed"].(map[string]any)["extra"] = 1.5
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			r.Write("metadata/timestamp.json", data)
		}},
	})
}

func TestBootstrapRoot(t *testing.T) {
	r := trusttest.New(t)
	good := r.Bootstrap()
	r.Root.Signed.Version = 7
	r.Root.ClearSignatures()
	unsigned, err := r.Root.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"absent": nil, "empty object": []byte("{}"), "truncated": good[:len(good)/2], "unsigned": unsigned,
		"not a root": r.Files()["metadata/targets.json"], "text": []byte("hello"), "null role": []byte(`{"signed":{"_type":"root","roles":{"root":null}},"signatures":[]}`),
	} {
		in := r.Input()
		in.BootstrapRoot = data
		t.Run(name, func(t *testing.T) { refuse(t, in, v1.ReasonBootstrapRoot, "root") })
	}
	// The root of another fleet.
	other := trusttest.New(t)
	other.SetKeys("root", 1, evil)
	other.SetKeys("timestamp", 1, evil)
	other.SaveRoot(evil)
	in := r.Input()
	in.BootstrapRoot = other.Bootstrap()
	refuse(t, in, v1.ReasonUnsigned, "timestamp")
}
