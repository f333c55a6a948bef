package trust_test

import (
	"crypto/ed25519"
	"crypto/sha512"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Steps 5.5.2, 5.5.5, 5.6.2, 5.6.4 and 5.7.3: what a signed entry tells of a file, length, hashes and
// version, is what the file has. What it doesn't tell is free.
func TestSpecLengthHashesVersion(t *testing.T) {
	bin := trust.BinOf(team, trust.TargetPath(team, node))
	for _, role := range []string{"snapshot", "targets", team, bin} {
		edit := func(change func(e *metadata.MetaFiles)) func(*trusttest.Repo) {
			return func(r *trusttest.Repo) {
				r.UseBins(node)
				entries := r.Snapshot.Signed.Meta
				if role == "snapshot" {
					entries = r.Timestamp.Signed.Meta
				} else {
					r.Snapshot.Signed.Version++
				}
				e := *entries[role+".json"]
				e.Hashes = maps.Clone(e.Hashes)
				change(&e)
				entries[role+".json"] = &e
				if role == "snapshot" {
					r.Timestamp.Signed.Version++
					r.SaveTimestamp()
					return
				}
				r.SaveSnapshot()
				r.SealTimestamp()
			}
		}
		mismatch := func(name string, change func(e *metadata.MetaFiles)) scenario {
			return scenario{name: name, reason: v1.ReasonMixAndMatch, role: role, do: edit(change)}
		}
		t.Run(role, func(t *testing.T) {
			runScenarios(t, []scenario{
				{name: "as signed", do: edit(func(*metadata.MetaFiles) {})},
				{name: "no length", do: edit(func(e *metadata.MetaFiles) { e.Length = 0 })},
				{name: "no hashes", do: edit(func(e *metadata.MetaFiles) { e.Hashes = nil })},
				{name: "only a version", do: edit(func(e *metadata.MetaFiles) { e.Length, e.Hashes = 0, nil })},
				mismatch("longer than signed", func(e *metadata.MetaFiles) { e.Length-- }),
				mismatch("shorter than signed", func(e *metadata.MetaFiles) { e.Length++ }),
				mismatch("a length alone is wrong", func(e *metadata.MetaFiles) { e.Length, e.Hashes = e.Length+1, nil }),
				mismatch("another hash", func(e *metadata.MetaFiles) { e.Hashes["sha256"] = make([]byte, 32) }),
				mismatch("a short hash", func(e *metadata.MetaFiles) { e.Hashes["sha256"] = e.Hashes["sha256"][:31] }),
				mismatch("one of two hashes is another", func(e *metadata.MetaFiles) { e.Hashes["sha512"] = make([]byte, 64) }),
				mismatch("an unknown hash function", func(e *metadata.MetaFiles) { e.Hashes = metadata.Hashes{"md5": make([]byte, 16)} }),
				mismatch("an unknown hash function beside a good one", func(e *metadata.MetaFiles) { e.Hashes["md5"] = make([]byte, 16) }),
				mismatch("a higher version", func(e *metadata.MetaFiles) { *e = metadata.MetaFiles{Version: e.Version + 1} }),
			})
		})
	}
}

// Step 5.7.3: the same for the target itself, which always has a length and hashes.
func TestSpecTargetLengthHashes(t *testing.T) {
	edit := func(change func(f *metadata.TargetFiles)) func(*trusttest.Repo) {
		return func(r *trusttest.Repo) {
			change(r.Targets[team].Signed.Targets[trust.TargetPath(team, node)])
			r.Targets[team].Signed.Version++
			r.SaveTargets(team)
			r.Seal()
		}
	}
	mismatch := func(name string, change func(f *metadata.TargetFiles)) scenario {
		return scenario{name: name, reason: v1.ReasonMixAndMatch, role: "manifest", do: edit(change)}
	}
	runScenarios(t, []scenario{
		{name: "two hashes", do: edit(func(f *metadata.TargetFiles) {
			sum := sha512.Sum512(trusttest.Manifest(node, 1, "first"))
			f.Hashes["sha512"] = sum[:]
		})},
		mismatch("longer than signed", func(f *metadata.TargetFiles) { f.Length-- }),
		mismatch("shorter than signed", func(f *metadata.TargetFiles) { f.Length++ }),
		mismatch("length 0", func(f *metadata.TargetFiles) { f.Length = 0 }),
		mismatch("another hash", func(f *metadata.TargetFiles) { f.Hashes["sha256"] = make([]byte, 32) }),
		mismatch("one of two hashes is another", func(f *metadata.TargetFiles) { f.Hashes["sha512"] = make([]byte, 64) }),
		mismatch("an unknown hash function only", func(f *metadata.TargetFiles) { f.Hashes = metadata.Hashes{"md5": make([]byte, 16)} }),
	})
}

// publishAs raises the version of one role to what is wanted and publishes it.
func publishAs(r *trusttest.Repo, role string, version int64) {
	switch role {
	case "timestamp":
		r.Timestamp.Signed.Version = version - 1
		r.SealTimestamp()
	case "snapshot":
		r.Snapshot.Signed.Version = version - 1
		r.Seal()
	default:
		r.Targets[role].Signed.Version = version
		r.SaveTargets(role)
		r.Seal()
	}
}

// Steps 5.4.3, 5.5.5, 5.5.6, 5.6.4: no role's version falls, whatever the online keys sign.
// A version may stay, and may skip.
func TestSpecRollbackOfEachRole(t *testing.T) {
	bin := trust.BinOf(team, trust.TargetPath(team, node))
	for _, role := range []string{"timestamp", "snapshot", "targets", team, bin} {
		t.Run(role, func(t *testing.T) {
			r := trusttest.New(t)
			r.UseBins(node)
			for _, each := range []string{"targets", team, bin, "snapshot", "timestamp"} {
				publishAs(r, each, 10)
			}
			publishAs(r, role, 20)
			in := r.Input()
			_, state := accept(t, in)
			for _, c := range []struct {
				version int64
				ok      bool
			}{{19, false}, {10, false}, {1, false}, {20, true}, {21, true}, {1000, true}} {
				publishAs(r, role, c.version)
				in.Repository, in.Stored = r.Files(), reload(t, state)
				_, next, err := trust.Verify(in)
				switch {
				case !c.ok && trust.ReasonOf(err) != v1.ReasonRollback:
					t.Errorf("version %d after 20: %v, want a rollback", c.version, err)
				case c.ok && err != nil:
					t.Errorf("version %d: %v", c.version, err)
				case c.ok:
					state = next
				}
			}
		})
	}
}

// Steps 5.3.10, 5.4.4, 5.5.7, 5.6.5: each role expires at its second, and renewing it heals.
// The instant of the expiry itself is still good, as go-tuf has it: see docs/adr/tuf-conformance.md.
func TestSpecExpiryOfEachRole(t *testing.T) {
	bin := trust.BinOf(team, trust.TargetPath(team, node))
	when := trusttest.Start.Add(time.Hour)
	expires := map[string]func(r *trusttest.Repo, at time.Time){
		"root": func(r *trusttest.Repo, at time.Time) { r.NextRoot(func() { r.Root.Signed.Expires = at }) },
		"timestamp": func(r *trusttest.Repo, at time.Time) {
			r.Timestamp.Signed.Expires = at
			r.SealTimestamp()
		},
		"snapshot": func(r *trusttest.Repo, at time.Time) {
			r.Snapshot.Signed.Expires = at
			r.Seal()
		},
	}
	for _, role := range []string{"targets", team, bin} {
		expires[role] = func(r *trusttest.Repo, at time.Time) {
			r.Targets[role].Signed.Expires = at
			publishAs(r, role, r.Targets[role].Signed.Version+1)
		}
	}
	for _, role := range sorted(expires) {
		t.Run(role, func(t *testing.T) {
			r := trusttest.New(t)
			r.UseBins(node)
			expires[role](r, when)
			in := r.Input()
			in.Now = when
			_, state := accept(t, in)
			for _, seen := range []trust.State{{}, state, reload(t, state)} {
				in.Now, in.Stored = when.Add(time.Second), seen
				refuse(t, in, v1.ReasonExpired, role)
			}
			expires[role](r, when.Add(time.Hour))
			in.Repository = r.Files()
			accept(t, in)
		})
	}
}

// graph publishes delegations of targets.json, made anew by build, and the roles that they name.
func graph(build func(r *trusttest.Repo)) func(*trusttest.Repo) {
	return func(r *trusttest.Repo) {
		r.Targets["targets"].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
		build(r)
		for _, role := range sorted(r.Targets) {
			r.Targets[role].Signed.Version++
			r.SaveTargets(role)
		}
		r.Seal()
	}
}

// may lets a role sign the paths, terminating or not, and lists the manifest in it or not.
func may(r *trusttest.Repo, role string, terminating, lists bool, paths ...string) {
	version := int64(1)
	if before := r.Targets[role]; before != nil {
		version = before.Signed.Version
	}
	r.Delegate(role, paths...).Terminating = terminating
	r.Targets[role].Signed.Version = version
	if lists {
		r.Put(role, node, trusttest.Manifest(node, 5, role))
	}
}

// Step 5.6.7: the search goes through the delegations in their order, and a terminating one ends it.
func TestSpecDelegationOrder(t *testing.T) {
	const all = "nodes/*/*/*.yaml"
	for _, c := range []struct {
		name  string
		build func(r *trusttest.Repo)
		// text is what the accepted manifest says; else reason and role.
		text   string
		reason v1.Reason
		role   string
	}{
		{name: "the first that lists it", text: "fleet", build: func(r *trusttest.Repo) {
			may(r, "backup", false, true, all)
			may(r, team, false, true, all) // written last, so the bytes are this one's
			d := r.Targets["targets"].Signed.Delegations
			slices.Reverse(d.Roles)
		}},
		{name: "the second, if the first doesn't list it", text: "backup", build: func(r *trusttest.Repo) {
			may(r, team, false, false, all)
			may(r, "backup", true, true, all)
		}},
		{name: "the first terminates", reason: v1.ReasonNoManifest, role: "manifest", build: func(r *trusttest.Repo) {
			may(r, team, true, false, all)
			may(r, "backup", true, true, all)
		}},
		{name: "a terminating one for other paths doesn't end it", text: "fleet", build: func(r *trusttest.Repo) {
			may(r, "other", true, false, trust.TeamPattern("other"))
			may(r, team, true, true, trust.TeamPattern(team))
		}},
		{name: "a broken role for other paths is not looked at", text: "fleet", build: func(r *trusttest.Repo) {
			may(r, "other", true, false, trust.TeamPattern("other"))
			r.Keys["other"] = []ed25519.PrivateKey{evil}
			may(r, team, true, true, trust.TeamPattern(team))
		}},
		{name: "a broken role before the good one", reason: v1.ReasonUnsigned, role: "backup", build: func(r *trusttest.Repo) {
			may(r, "backup", false, false, all)
			r.Keys["backup"] = []ed25519.PrivateKey{evil}
			may(r, team, true, true, all)
		}},
		{name: "one key for two roles", text: "fleet", build: func(r *trusttest.Repo) {
			may(r, "other", true, false, trust.TeamPattern("other"))
			may(r, team, true, true, trust.TeamPattern(team))
			d := r.Targets["targets"].Signed.Delegations
			d.Roles[0].KeyIDs = d.Roles[1].KeyIDs
			r.Keys["other"] = r.Keys[team]
		}},
		{name: "as many as may be asked", text: "fleet", build: func(r *trusttest.Repo) {
			for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
				may(r, name, false, false, all)
			}
			may(r, team, true, true, all)
		}},
		{name: "one more than may be asked", reason: v1.ReasonMalformed, role: "targets", build: func(r *trusttest.Repo) {
			for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
				may(r, name, false, false, all)
			}
			may(r, team, true, true, all)
		}},
		{name: "two roles that delegate to each other", reason: v1.ReasonMalformed, role: "backup", build: func(r *trusttest.Repo) {
			may(r, "backup", false, false, all)
			may(r, team, true, true, all)
			for from, to := range map[string]string{"backup": team, team: "backup"} {
				r.Targets[from].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{
					{Name: to, KeyIDs: []string{r.KeyID(trusttest.Key(to))}, Threshold: 1, Paths: []string{all}},
				}}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := trusttest.New(t)
			delete(r.Targets[team].Signed.Targets, trust.TargetPath(team, node))
			graph(c.build)(r)
			if c.reason != "" {
				refuse(t, r.Input(), c.reason, c.role)
				return
			}
			v, _ := accept(t, r.Input())
			if want := trusttest.Manifest(node, 5, c.text); string(v.Bytes()) != string(want) {
				t.Errorf("the manifest of another role:\n%s", v.Bytes())
			}
		})
	}
}

// Section 4.5: PATHPATTERN is matched as a whole, and a star stays within one folder.
func TestSpecPathPatterns(t *testing.T) {
	for _, c := range []struct {
		ok    bool
		paths []string
	}{
		{true, []string{trust.TeamPattern(team)}},
		{true, []string{"nodes/*/*/*.yaml"}},
		{true, []string{"nodes/fleet/44/gpu-001.yaml"}},
		{true, []string{"nodes/fleet/??/gpu-00?.yaml"}},
		{true, []string{"nodes/fleet/*/*"}},
		{true, []string{"nodes/other/*/*.yaml", "nodes/fleet/*/*.yaml"}},
		{false, []string{"nodes/fleet/*"}},
		{false, []string{"nodes/fleet/**"}},
		{false, []string{"nodes/fleet"}},
		{false, []string{"nodes/fleet/"}},
		{false, []string{"*"}},
		{false, []string{"**/*.yaml"}},
		{false, []string{"/nodes/fleet/*/*.yaml"}},
		{false, []string{"./nodes/fleet/*/*.yaml"}},
		{false, []string{"targets/nodes/fleet/*/*.yaml"}},
		{false, []string{"nodes/FLEET/*/*.yaml"}},
		{false, []string{"nodes/fleet/*/*.yml"}},
		{false, []string{"nodes/fleet/44/gpu-00?"}},
		{false, []string{"nodes/fleet/[/*.yaml"}},
		{false, []string{""}},
		{false, nil},
	} {
		r := trusttest.New(t)
		graph(func(r *trusttest.Repo) { may(r, team, true, true, c.paths...) })(r)
		_, _, err := trust.Verify(r.Input())
		// Without any paths at all go-tuf can't write the role: that is malformed.
		refused := trust.ReasonOf(err) == v1.ReasonNotDelegated || c.paths == nil && trust.ReasonOf(err) == v1.ReasonMalformed
		if c.ok && err != nil || !c.ok && !refused {
			t.Errorf("%q: %v", c.paths, err)
		}
	}
}

// A manifest counts only in the bin that its path hashes to.
func TestSpecWrongBin(t *testing.T) {
	r := trusttest.New(t)
	bin := r.UseBins(node)
	wrong := trust.BinPrefix(team) + "-00"
	r.Keys[wrong] = r.Keys[bin]
	r.Targets[wrong] = metadata.Targets(trusttest.Start.Add(trusttest.TeamLife))
	r.Put(wrong, node, trusttest.Manifest(node, 5, "wrong bin"))
	delete(r.Targets[bin].Signed.Targets, trust.TargetPath(team, node))
	r.SaveTargets(wrong)
	publishAs(r, bin, 2)
	refuse(t, r.Input(), v1.ReasonNoManifest, "manifest")
}
