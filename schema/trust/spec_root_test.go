package trust_test

import (
	"crypto/ed25519"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// The scenario tables of the spec_*_test.go files are written from the TUF specification's
// client workflow (section 5), in the order of its steps. docs/adr/tuf-conformance.md
// tells why they stand in for the public suite.

// scenario is one repository as the specification sees it.
type scenario struct {
	name string
	do   func(r *trusttest.Repo)
	// reason and role are those of the refusal; "" means that the node accepts.
	reason v1.Reason
	role   string
	// root is the version at which the node then stands; 0: not looked at.
	root int64
}

// runScenarios shows each to a node that knows only its bootstrap root, to one that verified the
// repository before, and to one that also restarted since.
func runScenarios(t *testing.T, list []scenario) {
	t.Helper()
	for _, s := range list {
		t.Run(s.name, func(t *testing.T) {
			r := trusttest.New(t)
			_, seen := accept(t, r.Input())
			in := r.Input()
			s.do(r)
			in.Repository = r.Files()
			for _, state := range []trust.State{{}, seen, reload(t, seen)} {
				in.Stored = state
				if s.reason != "" {
					refuse(t, in, s.reason, s.role)
					continue
				}
				v, _ := accept(t, in)
				if got := v.Trust().RootVersion; s.root != 0 && got != s.root {
					t.Errorf("stands at root version %d, want %d", got, s.root)
				}
			}
		})
	}
}

// keys names private keys: keys("ab") are key a and key b; the first root has key "root", written r.
func keys(letters string) []ed25519.PrivateKey {
	var out []ed25519.PrivateKey
	for _, l := range letters {
		if l == 'r' {
			out = append(out, trusttest.Key("root"))
			continue
		}
		out = append(out, trusttest.Key("rotated "+string(l)))
	}
	return out
}

// link is one root of a chain: who may sign from it on, how many must, and who signed it.
type link struct {
	keys      string
	threshold int
	signers   string
}

func rootChain(links ...link) func(*trusttest.Repo) {
	return func(r *trusttest.Repo) {
		for _, l := range links {
			r.Root.Signed.Version++
			r.SetKeys("root", l.threshold, keys(l.keys)...)
			r.SaveRoot(keys(l.signers)...)
		}
	}
}

// Section 5.3, steps 4 and 5: a new root is signed by a threshold of the keys of the
// one before and by a threshold of its own, and its version is one higher.
func TestSpecRootKeyRotation(t *testing.T) {
	const unsigned = v1.ReasonUnsigned
	runScenarios(t, []scenario{
		{name: "one key to another", root: 2, do: rootChain(link{"a", 1, "ra"})},
		{name: "the order of signatures is free", root: 2, do: rootChain(link{"a", 1, "ar"})},
		{name: "1 to 2 to 3 keys, the threshold following", root: 4, do: rootChain(
			link{"ra", 2, "ra"}, link{"rab", 2, "ra"}, link{"rab", 3, "rab"})},
		{name: "and back to 1", root: 5, do: rootChain(
			link{"ra", 2, "ra"}, link{"rab", 3, "rab"}, link{"ab", 2, "rab"}, link{"b", 1, "ab"})},
		{name: "2 of 3, a different pair signs each", root: 4, do: rootChain(
			link{"abc", 2, "rab"}, link{"abc", 2, "bc"}, link{"abc", 2, "ac"})},
		{name: "2 of 3, all keys replaced one by one", root: 5, do: rootChain(
			link{"abc", 2, "rab"}, link{"bcd", 2, "bc"}, link{"cde", 2, "cd"}, link{"def", 2, "de"})},
		{name: "all keys replaced at once", root: 3, do: rootChain(link{"abc", 2, "rab"}, link{"def", 2, "abde"})},
		{name: "one signature is for both roots", root: 3, do: rootChain(link{"ab", 1, "ra"}, link{"b", 1, "b"})},
		{name: "nothing but the version changes", root: 2, do: rootChain(link{"r", 1, "r"})},
		{name: "foreign signatures beside good ones", root: 2, do: rootChain(link{"a", 1, "xray"})},

		{name: "only the old key signs", reason: unsigned, role: "root", do: rootChain(link{"a", 1, "r"})},
		{name: "only the new key signs", reason: unsigned, role: "root", do: rootChain(link{"a", 1, "a"})},
		{name: "a foreign key signs", reason: unsigned, role: "root", do: rootChain(link{"a", 1, "x"})},
		{name: "under the new threshold", reason: unsigned, role: "root", do: rootChain(link{"ab", 2, "ra"})},
		{name: "under the old threshold, which is being lowered", reason: unsigned, role: "root", do: rootChain(
			link{"ab", 2, "rab"}, link{"a", 1, "a"})},
		{name: "under the old threshold by one of three", reason: unsigned, role: "root", do: rootChain(
			link{"abc", 3, "rabc"}, link{"def", 1, "abdef"})},
		{name: "a threshold above the number of keys", reason: unsigned, role: "root", do: rootChain(link{"a", 2, "ra"})},
		{name: "one key listed twice for a threshold of two", reason: unsigned, role: "root", do: rootChain(link{"aa", 2, "ra"})},
		{name: "a key that was dropped signs the next root", reason: unsigned, role: "root", do: rootChain(
			link{"a", 1, "ra"}, link{"b", 1, "rb"})},
		{name: "a key that was dropped comes back by itself", reason: unsigned, role: "root", do: rootChain(
			link{"a", 1, "ra"}, link{"b", 1, "ab"}, link{"a", 1, "a"})},
		{name: "a good link above a bad one", reason: unsigned, role: "root", do: rootChain(
			link{"a", 1, "x"}, link{"r", 1, "ra"})},
	})
}

// Steps 5.3.2, 5.3.3, 5.3.5: the walk takes one version at a time and ends where there is no next.
func TestSpecRootChain(t *testing.T) {
	three := rootChain(link{"a", 1, "ra"}, link{"b", 1, "ab"}, link{"c", 1, "bc"})
	put := func(version, content int64) func(*trusttest.Repo) {
		return func(r *trusttest.Repo) {
			three(r)
			r.Write(trust.RootPath(version), r.Files()[trust.RootPath(content)])
		}
	}
	runScenarios(t, []scenario{
		{name: "a whole chain", root: 4, do: three},
		{name: "version 2 holds version 1", reason: v1.ReasonRollback, role: "root", do: put(2, 1)},
		{name: "version 3 holds version 2", reason: v1.ReasonRollback, role: "root", do: put(3, 2)},
		// Signatures are looked at before versions.
		{name: "version 4 holds version 1", reason: v1.ReasonUnsigned, role: "root", do: put(4, 1)},
		{name: "version 2 holds version 4", reason: v1.ReasonUnsigned, role: "root", do: put(2, 4)},
		{name: "version 5 holds version 4", reason: v1.ReasonRollback, role: "root", do: put(5, 4)},
		{name: "a link that is no JSON", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo) {
			three(r)
			r.Write(trust.RootPath(3), []byte("gone"))
		}},
		{name: "a link of another type", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo) {
			three(r)
			r.Write(trust.RootPath(3), r.Files()["metadata/targets.json"])
		}},
		{name: "an empty link", reason: v1.ReasonMalformed, role: "root", do: func(r *trusttest.Repo) {
			three(r)
			r.Write(trust.RootPath(3), []byte{})
		}},
	})

	for missing, want := range map[int64]int64{2: 1, 3: 2, 4: 3} {
		r := trusttest.New(t)
		three(r)
		in := r.Input()
		in.Repository = r.Files().With(trust.RootPath(missing), nil)
		v, state := accept(t, in)
		if got := v.Trust().RootVersion; got != want {
			t.Errorf("without version %d the node stands at %d, want %d", missing, got, want)
		}
		// Once the link is there, it walks on.
		in.Repository, in.Stored = r.Files(), reload(t, state)
		if v, _ := accept(t, in); v.Trust().RootVersion != 4 {
			t.Errorf("with version %d back the node stands at %d, want 4", missing, v.Trust().RootVersion)
		}
	}
}

// Steps 5.3.7 and 5.3.10: expiry counts for the last root of the chain only.
func TestSpecRootExpiry(t *testing.T) {
	past, future := trusttest.Start.Add(-time.Hour), trusttest.Start.Add(trusttest.OfflineLife)
	expiring := func(times ...time.Time) func(*trusttest.Repo) {
		return func(r *trusttest.Repo) {
			for _, when := range times {
				r.NextRoot(func() { r.Root.Signed.Expires = when })
			}
		}
	}
	runScenarios(t, []scenario{
		{name: "an expired root between good ones", root: 3, do: expiring(past, future)},
		{name: "many expired ones, the last is good", root: 5, do: expiring(past, past, past, future)},
		{name: "the last is expired", reason: v1.ReasonExpired, role: "root", do: expiring(future, past)},
		{name: "the only new one is expired", reason: v1.ReasonExpired, role: "root", do: expiring(past)},
	})

	// A node whose bootstrap root expired while it lay in the shelf walks to the newest.
	r := trusttest.New(t)
	r.Root.Signed.Expires = past
	r.SaveRoot()
	in := r.Input()
	refuse(t, in, v1.ReasonExpired, "root")
	r.NextRoot(func() { r.Root.Signed.Expires = future })
	in.Repository = r.Files()
	accept(t, in)
}

// Step 5.3.11 and 5.4.2, 5.5.3, 5.6.3: a top-level role is signed by the keys that the newest root gives it.
func TestSpecTopLevelKeyRotation(t *testing.T) {
	save := map[string]func(*trusttest.Repo, ...ed25519.PrivateKey){
		"timestamp": func(r *trusttest.Repo, by ...ed25519.PrivateKey) {
			r.Timestamp.Signed.Version++
			r.SaveTimestamp(by...)
		},
		"snapshot": func(r *trusttest.Repo, by ...ed25519.PrivateKey) {
			r.Snapshot.Signed.Version++
			r.SaveSnapshot(by...)
			r.SealTimestamp()
		},
		"targets": func(r *trusttest.Repo, by ...ed25519.PrivateKey) {
			r.Targets["targets"].Signed.Version++
			r.SaveTargets("targets", by...)
			r.Seal()
		},
	}
	for _, role := range sorted(save) {
		old := trusttest.Key(role)
		a, b, c := keys("a")[0], keys("b")[0], keys("c")[0]
		rotate := func(threshold int, list []ed25519.PrivateKey, by ...ed25519.PrivateKey) func(*trusttest.Repo) {
			return func(r *trusttest.Repo) {
				r.NextRoot(func() { r.SetKeys(role, threshold, list...) })
				save[role](r, by...)
			}
		}
		list := func(k ...ed25519.PrivateKey) []ed25519.PrivateKey { return k }
		t.Run(role, func(t *testing.T) {
			runScenarios(t, []scenario{
				{name: "another key", root: 2, do: rotate(1, list(a), a)},
				{name: "1 to 3 keys", root: 2, do: rotate(3, list(a, b, c), a, b, c)},
				{name: "2 of 3", root: 2, do: rotate(2, list(a, b, c), a, c)},
				{name: "old and new key, the new one signs", root: 2, do: rotate(1, list(old, a), a)},
				{name: "foreign signatures beside a good one", root: 2, do: rotate(1, list(a), b, a, c)},
				{name: "the old key signs", reason: v1.ReasonUnsigned, role: role, do: rotate(1, list(a), old)},
				{name: "1 of 2", reason: v1.ReasonUnsigned, role: role, do: rotate(2, list(a, b), a)},
				{name: "1 of 2 and the old key", reason: v1.ReasonUnsigned, role: role, do: rotate(2, list(a, b), a, old)},
				{name: "one key listed twice", reason: v1.ReasonUnsigned, role: role, do: rotate(2, list(a, a), a)},
				{name: "a threshold above the number of keys", reason: v1.ReasonUnsigned, role: role, do: rotate(3, list(a, b), a, b)},
				{name: "the key of another role", reason: v1.ReasonUnsigned, role: role, do: rotate(1, list(a), trusttest.Key("root"), trusttest.Key("fleet"))},
				{name: "what the old key signed before", reason: v1.ReasonUnsigned, role: role, do: func(r *trusttest.Repo) {
					r.NextRoot(func() { r.SetKeys(role, 1, a) })
				}},
				{name: "threshold 0", reason: v1.ReasonMalformed, role: "root", do: rotate(0, list(a), a)},
				{name: "a negative threshold", reason: v1.ReasonMalformed, role: "root", do: rotate(-1, list(a), a)},
				{name: "no keys", reason: v1.ReasonMalformed, role: "root", do: rotate(1, nil, a)},
			})
		})
	}
}
