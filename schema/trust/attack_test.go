package trust_test

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

var (
	evil     = trusttest.Key("evil")
	manifest = "targets/" + trust.TargetPath(trusttest.Team, trusttest.Node)
)

const (
	node = trusttest.Node
	team = trusttest.Team
)

// attack prepares what an attacker shows to a node. seen is the branch that the node verified
// before, if it did; old are its files.
type attack struct {
	name   string
	reason v1.Reason
	role   string
	// fresh is for a node that knows only its bootstrap root.
	fresh bool
	do    func(r *trusttest.Repo, in *trust.Input, old trusttest.Files)
}

// runAttacks tries each on a node that restarted, and on one that still remembers in
// memory what it verified.
func runAttacks(t *testing.T, attacks []attack) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { runAttack(t, a, true) })
		t.Run(a.name+" (no restart)", func(t *testing.T) { runAttack(t, a, false) })
	}
}

func runAttack(t *testing.T, a attack, restart bool) {
	r := trusttest.New(t)
	r.Publish(node, trusttest.Manifest(node, 2, "second"))
	old := r.Files()
	in := r.Input()
	_, state := accept(t, in)
	r.Publish(node, trusttest.Manifest(node, 3, "third"))
	if !a.fresh {
		in.Repository = r.Files()
		in.Stored = state
		_, state = accept(t, in)
		in.Stored = state
		if restart {
			in.Stored = reload(t, state)
		}
	}
	in.Repository = nil
	a.do(r, &in, old)
	if in.Repository == nil {
		in.Repository = r.Files()
	}
	before := encodeState(t, in.Stored)
	next := refuse(t, in, a.reason, a.role)
	if a.fresh {
		return
	}
	// Whatever was tried, what the node had stays, and the honest branch is accepted.
	had, err := trust.Restore(in.BootstrapRoot, next, team, node, in.Now)
	if err != nil || had.Manifest().Generation != 3 {
		t.Errorf("the last verified state is lost: %v", err)
	}
	if a.reason != v1.ReasonExpired && !bytes.Equal(before, encodeState(t, next)) {
		t.Error("the attack changed the state")
	}
}

func TestAttackContent(t *testing.T) {
	runAttacks(t, []attack{
		{name: "arbitrary manifest", reason: v1.ReasonMixAndMatch, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Write(manifest, trusttest.Manifest(node, 9, "evil"))
		}},
		{name: "arbitrary manifest, its role signed by a foreign key", reason: v1.ReasonMixAndMatch, role: "fleet", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Put(team, node, trusttest.Manifest(node, 9, "evil"))
			r.SaveTargets(team, evil)
		}},
		{name: "arbitrary manifest, the online keys stolen too", reason: v1.ReasonUnsigned, role: "fleet", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Put(team, node, trusttest.Manifest(node, 9, "evil"))
			r.Targets[team].Signed.Version++
			r.SaveTargets(team, evil)
			r.Seal()
		}},
		{name: "a repository of the attacker's own", reason: v1.ReasonUnsigned, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Keys["timestamp"] = append(r.Keys["timestamp"][:0:0], evil)
			r.Seal()
		}},
		{name: "manifest of another node", reason: v1.ReasonWrongNode, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Publish(node, trusttest.Manifest("gpu-002", 9, "not yours"))
		}},
		{name: "another team signs for this one's node", reason: v1.ReasonNoManifest, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Delegate("other", trust.TeamPattern("other"))
			r.PutAt("other", trust.TargetPath(team, node), trusttest.Manifest(node, 9, "evil"))
			delete(r.Targets[team].Signed.Targets, trust.TargetPath(team, node))
			r.Targets[team].Signed.Version++
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("other")
			r.SaveTargets("targets")
			r.SaveTargets(team)
			r.Seal()
		}},
		{name: "no manifest for the node", reason: v1.ReasonNoManifest, role: "manifest", do: func(_ *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			in.Node = "gpu-777"
		}, fresh: true},
		{name: "unknown team", reason: v1.ReasonNotDelegated, role: "targets", do: func(_ *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			in.Team = "nobody"
		}, fresh: true},
		{name: "a role without delegation", reason: v1.ReasonNotDelegated, role: "targets", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Targets["targets"].Signed.Delegations = nil
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("targets")
			r.Seal()
		}},
		{name: "a manifest that doesn't decode", reason: v1.ReasonMalformed, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Publish(node, []byte("apiVersion: fleet.gpuaas.dev/v1\nkind: NodeManifest\nnode: gpu-001\ngeneration: 9\nshell: rm\n"))
		}},
	})
}

func TestAttackRollback(t *testing.T) {
	runAttacks(t, []attack{
		{name: "the whole tree", reason: v1.ReasonRollback, role: "timestamp", do: func(_ *trusttest.Repo, in *trust.Input, old trusttest.Files) {
			in.Repository = old
		}},
		{name: "the timestamp", reason: v1.ReasonRollback, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, old trusttest.Files) {
			r.Write("metadata/timestamp.json", old["metadata/timestamp.json"])
		}},
		{name: "the snapshot, with the timestamp's key", reason: v1.ReasonRollback, role: "timestamp", do: func(r *trusttest.Repo, _ *trust.Input, old trusttest.Files) {
			r.Write("metadata/snapshot.json", old["metadata/snapshot.json"])
			r.Snapshot.Signed.Version--
			r.SealTimestamp()
		}},
		{name: "one role, with both online keys", reason: v1.ReasonRollback, role: "snapshot", do: func(r *trusttest.Repo, _ *trust.Input, old trusttest.Files) {
			r.Write("metadata/fleet.json", old["metadata/fleet.json"])
			r.Targets[team].Signed.Version--
			r.Seal()
		}},
		{name: "an entry removed, with both online keys", reason: v1.ReasonRollback, role: "snapshot", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			delete(r.Snapshot.Signed.Meta, "fleet.json")
			r.Snapshot.Signed.Version++
			r.SaveSnapshot()
			r.SealTimestamp()
		}},
		{name: "one manifest's blob", reason: v1.ReasonMixAndMatch, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, old trusttest.Files) {
			r.Write(manifest, old[manifest])
		}},
		{name: "a generation, with the team's key", reason: v1.ReasonRollback, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Publish(node, trusttest.Manifest(node, 2, "second"))
		}},
		{name: "other content in the same generation", reason: v1.ReasonRollback, role: "manifest", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Publish(node, trusttest.Manifest(node, 3, "not the third"))
		}},
		{name: "an old root under a new name", reason: v1.ReasonRollback, role: "root", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			r.Write(trust.RootPath(2), r.Bootstrap())
		}},
		{name: "a root that skips a version", reason: v1.ReasonRollback, role: "root", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			r.Root.Signed.Version = 3
			r.SaveRoot()
			r.Write(trust.RootPath(2), r.Files()[trust.RootPath(3)])
		}},
	})
}

// The floor is the agent's own: it holds where the stored files can't help, because the
// online keys that signed them were replaced.
func TestFloorHoldsWithoutStoredFiles(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "fleet"} {
		t.Run(role, func(t *testing.T) {
			r := trusttest.New(t)
			for g := range int64(4) {
				r.Targets["targets"].Signed.Version++
				r.SaveTargets("targets")
				r.Publish(node, trusttest.Manifest(node, g+2, "next"))
			}
			_, state := accept(t, r.Input())
			// A second timestamp key is added: no reason to forget anything. The
			// snapshot's key is replaced, so that the stored snapshot verifies no more.
			r.NextRoot(func() {
				r.SetKeys("timestamp", 1, trusttest.Key("timestamp"), trusttest.Key("timestamp 2"))
				r.SetKeys("snapshot", 1, trusttest.Key("snapshot 2"))
			})
			want := role
			switch role {
			case "timestamp":
				r.Timestamp.Signed.Version -= 2
			case "snapshot":
				r.Snapshot.Signed.Version -= 2
				want = "timestamp" // the stored timestamp knows the snapshot's version
			default:
				r.Targets[role].Signed.Version--
				r.SaveTargets(role)
			}
			if role == "timestamp" {
				r.SealTimestamp()
			} else {
				r.Seal()
			}
			in := r.Input()
			in.Stored = reload(t, state)
			refuse(t, in, v1.ReasonRollback, want)
		})
	}
}

// A node that knows a newer root isn't talked back to revoked keys by hiding it, nor by
// hiding it and damaging what the node stored.
func TestAttackHiddenRoot(t *testing.T) {
	r := trusttest.New(t)
	r.NextRoot(func() { r.SetKeys("timestamp", 1, trusttest.Key("new timestamp")) })
	r.SealTimestamp()
	_, state := accept(t, r.Input())
	// The thief of the old timestamp key publishes, without the root that revoked it.
	r.Keys["timestamp"] = append(r.Keys["timestamp"][:0:0], trusttest.Key("timestamp"))
	r.Publish(node, trusttest.Manifest(node, 9, "evil"))
	in := r.Input()
	in.Stored = reload(t, state)
	in.Repository = r.Files().With(trust.RootPath(2), nil)
	refuse(t, in, v1.ReasonUnsigned, "timestamp")

	in.Stored = forgetRoots(t, state)
	refuse(t, in, v1.ReasonRollback, "root")
}

// Nor does it need them to be there at all.
func TestFloorHoldsAlone(t *testing.T) {
	for _, role := range []string{"timestamp", "snapshot", "targets", "fleet", "manifest"} {
		t.Run(role, func(t *testing.T) {
			r := trusttest.New(t)
			for g := range int64(3) {
				r.Targets["targets"].Signed.Version++
				r.SaveTargets("targets")
				r.Publish(node, trusttest.Manifest(node, g+2, "next"))
			}
			_, state := accept(t, r.Input())
			in := r.Input()
			in.Stored = decodeState(t, tamper(t, state, func(body map[string]any) { delete(body, "last") }))
			switch role {
			case "timestamp":
				r.Timestamp.Signed.Version -= 2
				r.SealTimestamp()
			case "snapshot":
				r.Snapshot.Signed.Version -= 2
				r.Seal()
			case "manifest":
				r.Publish(node, trusttest.Manifest(node, 2, "next"))
			default:
				r.Targets[role].Signed.Version--
				r.SaveTargets(role)
				r.Seal()
			}
			in.Repository = r.Files()
			refuse(t, in, v1.ReasonRollback, role)
		})
	}
}

func TestAttackFreeze(t *testing.T) {
	at := func(d time.Duration) func(*trusttest.Repo, *trust.Input, trusttest.Files) {
		return func(_ *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			in.Now = trusttest.Start.Add(d + time.Second)
		}
	}
	runAttacks(t, []attack{
		{name: "timestamp", reason: v1.ReasonExpired, role: "timestamp", do: at(trusttest.TimestampLife)},
		{name: "snapshot", reason: v1.ReasonExpired, role: "snapshot", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Expires = trusttest.Start.AddDate(9, 0, 0)
			r.SealTimestamp()
			in.Now = trusttest.Start.Add(trusttest.SnapshotLife + time.Second)
		}},
		{name: "team", reason: v1.ReasonExpired, role: "fleet", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Expires = trusttest.Start.AddDate(9, 0, 0)
			r.Snapshot.Signed.Expires = trusttest.Start.AddDate(9, 0, 0)
			r.Seal()
			in.Now = trusttest.Start.Add(trusttest.TeamLife + time.Second)
		}},
		{name: "targets", reason: v1.ReasonExpired, role: "targets", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			r.Targets["targets"].Signed.Expires = trusttest.Start.Add(time.Minute)
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("targets")
			r.Seal()
			in.Now = trusttest.Start.Add(time.Hour)
		}},
		{name: "root", reason: v1.ReasonExpired, role: "root", do: at(trusttest.OfflineLife)},
		{name: "the clock set back before the build", reason: v1.ReasonExpired, role: "timestamp", do: func(_ *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			in.Now, in.BuildTime = time.Unix(0, 0), trusttest.Start.AddDate(0, 6, 0)
		}},
	})
}

// Metadata that was found expired stays so when the clock is set back.
func TestAttackClockSetBack(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	in := r.Input()
	in.Stored, in.Now = reload(t, state), trusttest.Start.AddDate(0, 0, 10)
	state = refuse(t, in, v1.ReasonExpired, "timestamp")
	in.Stored, in.Now = reload(t, state), time.Unix(0, 0)
	refuse(t, in, v1.ReasonExpired, "timestamp")
	// And what was verified late can't be followed by what expired meanwhile.
	r.Timestamp.Signed.Expires = trusttest.Start.AddDate(0, 0, 20)
	r.SealTimestamp()
	in.Repository, in.Now = r.Files(), trusttest.Start.AddDate(0, 0, 15)
	_, state = accept(t, in)
	r.Timestamp.Signed.Expires = trusttest.Start.AddDate(0, 0, 14)
	r.SealTimestamp()
	in.Repository, in.Stored, in.Now = r.Files(), reload(t, state), trusttest.Start
	refuse(t, in, v1.ReasonExpired, "timestamp")
}

// A clock that jumped far ahead for a while doesn't brick the node.
func TestClockJumpHeals(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	in := r.Input()
	for _, jump := range []int{1, 40} {
		in.Stored, in.Now = state, trusttest.Start.AddDate(jump, 0, 0)
		_, state, _ = trust.Verify(in)
	}
	r.Timestamp.Signed.Expires = trusttest.Start.AddDate(0, 0, 4)
	r.SealTimestamp()
	in.Repository, in.Stored, in.Now = r.Files(), reload(t, state), trusttest.Start.AddDate(0, 0, 1)
	accept(t, in)
}

// Whoever stole both online keys can sign the highest versions there are. The way out
// is a root that takes the timestamp's key away.
func TestAttackFastForwardAndRecovery(t *testing.T) {
	r := trusttest.New(t)
	honest := *r.Timestamp
	honestSnapshot := *r.Snapshot
	r.Timestamp.Signed.Version, r.Snapshot.Signed.Version = math.MaxInt64-1, math.MaxInt64-1
	r.Snapshot.Signed.Meta = map[string]*metadata.MetaFiles{
		"targets.json": honestSnapshot.Signed.Meta["targets.json"], "fleet.json": honestSnapshot.Signed.Meta["fleet.json"],
	}
	r.Seal()
	_, state := accept(t, r.Input())

	*r.Timestamp, *r.Snapshot = honest, honestSnapshot
	r.Publish(node, trusttest.Manifest(node, 2, "honest"))
	in := r.Input()
	in.Stored = state
	state = refuse(t, in, v1.ReasonRollback, "timestamp")

	r.NextRoot(func() { r.SetKeys("timestamp", 1, trusttest.Key("timestamp"), trusttest.Key("new timestamp")) })
	r.SealTimestamp()
	in.Repository, in.Stored = r.Files(), state
	state = refuse(t, in, v1.ReasonRollback, "timestamp") // the thief's key is still there

	r.NextRoot(func() {
		r.SetKeys("timestamp", 1, trusttest.Key("new timestamp"))
		r.SetKeys("snapshot", 1, trusttest.Key("new snapshot"))
	})
	r.Seal()
	in.Repository, in.Stored = r.Files(), state
	_, state = accept(t, in)
	// From here on the floor is the honest one.
	r.Timestamp.Signed.Version -= 2
	r.SealTimestamp()
	in.Repository, in.Stored = r.Files(), reload(t, state)
	refuse(t, in, v1.ReasonRollback, "timestamp")
}

func TestAttackMixAndMatch(t *testing.T) {
	mix := func(path string) func(*trusttest.Repo, *trust.Input, trusttest.Files) {
		return func(r *trusttest.Repo, _ *trust.Input, old trusttest.Files) {
			r.Publish(node, trusttest.Manifest(node, 4, "fourth"))
			r.Write(path, old[path])
		}
	}
	lose := func(path string) func(*trusttest.Repo, *trust.Input, trusttest.Files) {
		return func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) { in.Repository = r.Files().With(path, nil) }
	}
	runAttacks(t, []attack{
		{name: "old snapshot", reason: v1.ReasonMixAndMatch, role: "snapshot", do: mix("metadata/snapshot.json")},
		{name: "old role", reason: v1.ReasonMixAndMatch, role: "fleet", do: mix("metadata/fleet.json")},
		{name: "old manifest", reason: v1.ReasonMixAndMatch, role: "manifest", do: mix(manifest)},
		{name: "new timestamp only", reason: v1.ReasonMixAndMatch, role: "snapshot", do: func(r *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			before := r.Files()
			r.Publish(node, trusttest.Manifest(node, 4, "fourth"))
			in.Repository = before.With("metadata/timestamp.json", r.Files()["metadata/timestamp.json"])
		}},
		{name: "a snapshot without hashes of another version", reason: v1.ReasonMixAndMatch, role: "snapshot", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Version++
			r.Timestamp.Signed.Meta["snapshot.json"] = &metadata.MetaFiles{Version: r.Snapshot.Signed.Version + 1}
			r.SaveTimestamp()
		}},
		{name: "a role without hashes of another version", reason: v1.ReasonMixAndMatch, role: "fleet", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Snapshot.Signed.Version++
			r.Snapshot.Signed.Meta["fleet.json"] = &metadata.MetaFiles{Version: r.Targets[team].Signed.Version + 1}
			r.SaveSnapshot()
			r.SealTimestamp()
		}},
		{name: "another timestamp of the same version", reason: v1.ReasonMixAndMatch, role: "snapshot", do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			r.Timestamp.Signed.Version--
			r.Publish(node, trusttest.Manifest(node, 4, "fourth"))
		}},
		{name: "no timestamp", reason: v1.ReasonMissing, role: "timestamp", do: lose("metadata/timestamp.json")},
		{name: "no snapshot", reason: v1.ReasonMissing, role: "snapshot", do: lose("metadata/snapshot.json")},
		{name: "no targets", reason: v1.ReasonMissing, role: "targets", do: lose("metadata/targets.json")},
		{name: "no team role", reason: v1.ReasonMissing, role: "fleet", do: lose("metadata/fleet.json")},
		{name: "no manifest", reason: v1.ReasonMissing, role: "manifest", do: lose(manifest)},
		{name: "an emptied branch", reason: v1.ReasonMissing, role: "timestamp", do: func(_ *trusttest.Repo, in *trust.Input, _ trusttest.Files) {
			in.Repository = trusttest.Files{}
		}},
		{name: "a role that the snapshot never had", reason: v1.ReasonMissing, role: "fleet", fresh: true, do: func(r *trusttest.Repo, _ *trust.Input, _ trusttest.Files) {
			delete(r.Snapshot.Signed.Meta, "fleet.json")
			r.SaveSnapshot()
			r.SealTimestamp()
		}},
	})
}

func TestAttackEndlessData(t *testing.T) {
	for path, c := range map[string]struct {
		limit int
		role  string
	}{
		trust.RootPath(2):         {trust.MaxRoot, "root"},
		"metadata/timestamp.json": {trust.MaxTimestamp, "timestamp"},
		"metadata/snapshot.json":  {trust.MaxSnapshot, "snapshot"},
		"metadata/targets.json":   {trust.MaxTargets, "targets"},
		"metadata/fleet.json":     {trust.MaxRole, "fleet"},
		manifest:                  {trust.MaxManifest, "manifest"},
	} {
		r := trusttest.New(t)
		r.Write(path, bytes.Repeat([]byte(" "), c.limit+1))
		refuse(t, r.Input(), v1.ReasonMalformed, c.role)
	}
	// Not even the bootstrap root is read without end.
	in := trusttest.New(t).Input()
	in.BootstrapRoot = append(bytes.Repeat([]byte(" "), trust.MaxRoot), in.BootstrapRoot...)
	refuse(t, in, v1.ReasonBootstrapRoot, "root")
}

func TestAttackEndlessRoots(t *testing.T) {
	r := trusttest.New(t)
	for range 1100 {
		r.NextRoot(func() {})
	}
	in := r.Input()
	v, state := accept(t, in)
	if v.Trust().RootVersion != 1025 {
		t.Errorf("root version %d in one refresh", v.Trust().RootVersion)
	}
	in.Stored = reload(t, state)
	if v, _ := accept(t, in); v.Trust().RootVersion != 1101 {
		t.Errorf("root version %d in the next", v.Trust().RootVersion)
	}
}

func TestAttackNames(t *testing.T) {
	for _, name := range []string{"snapshot", "root", "../fleet", "Fleet", "a/b", "", strings.Repeat("a", 41), "fleet-bin-0a", "x-bin-123", "1.root", "fleet\x00"} {
		r := trusttest.New(t)
		r.Delegate(name, "nodes/x/*/*.yaml")
		r.Targets["targets"].Signed.Version++
		r.SaveTargets("targets")
		delete(r.Targets, name)
		r.Seal()
		t.Run(name, func(t *testing.T) { refuse(t, r.Input(), v1.ReasonMalformed, "targets") })
	}
	in := trusttest.New(t).Input()
	in.Node = "../../root"
	refuse(t, in, v1.ReasonNoManifest, "")
	in.Node, in.Team = node, "snapshot"
	refuse(t, in, v1.ReasonNotDelegated, "")
}
