package trust_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

// accept verifies and insists that it succeeds.
func accept(t *testing.T, in trust.Input) (trust.Verified, trust.State) {
	t.Helper()
	v, next, err := trust.Verify(in)
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return v, next
}

// refuse verifies and insists on a reason; the answer must be empty.
func refuse(t *testing.T, in trust.Input, reason v1.Reason, role string) trust.State {
	t.Helper()
	v, next, err := trust.Verify(in)
	checkError(t, err, reason, role)
	if !v.IsZero() {
		t.Error("there is a manifest in spite of the error")
	}
	return next
}

func checkError(t *testing.T, err error, reason v1.Reason, role string) {
	t.Helper()
	var e *trust.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v (%T), want a *trust.Error %s of %q", err, err, reason, role)
	}
	if e.Reason != reason || e.Role != role {
		t.Fatalf("got %s of %q, want %s of %q: %v", e.Reason, e.Role, reason, role, err)
	}
}

// reload stores a state and reads it back, as a restarted agent does.
func reload(t *testing.T, s trust.State) trust.State {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out, err := trust.DecodeState(data)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func encodeState(t testing.TB, s trust.State) []byte {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestVerifyFresh(t *testing.T) {
	r := trusttest.New(t)
	v, next := accept(t, r.Input())
	want := trusttest.Manifest(trusttest.Node, 1, "first")
	if !bytes.Equal(v.Bytes(), want) || v.Manifest().Generation != 1 || v.Manifest().Node != trusttest.Node {
		t.Errorf("another manifest: %s", v.Bytes())
	}
	tr := v.Trust()
	if tr.RootVersion != 1 || tr.Versions["snapshot"] != 1 || tr.Versions["fleet"] != 1 {
		t.Errorf("versions: %+v", tr)
	}
	if !tr.Expires["timestamp"].Equal(trusttest.Start.Add(trusttest.TimestampLife)) {
		t.Errorf("expiries: %+v", tr.Expires)
	}
	if got := tr.KeyIDs["fleet"]; !slices.Equal(got, []string{r.KeyID(trusttest.Key("fleet"))}) {
		t.Errorf("key ids: %v", got)
	}
	if next.IsZero() {
		t.Error("nothing was remembered")
	}
	role, when, expired := v.ExpiredAt(trusttest.Start)
	if role != "timestamp" || expired || !when.Equal(trusttest.Start.Add(trusttest.TimestampLife)) {
		t.Errorf("first to expire: %s at %s, %v", role, when, expired)
	}
	if _, _, expired := v.ExpiredAt(when); expired {
		t.Error("expired in its last second")
	}
	if _, _, expired := v.ExpiredAt(when.Add(time.Second)); !expired {
		t.Error("not expired after its last second")
	}
}

func TestVerifyNewer(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	for g := int64(2); g < 5; g++ {
		r.Publish(trusttest.Node, trusttest.Manifest(trusttest.Node, g, "next"))
		in := r.Input()
		in.Stored = reload(t, state)
		var v trust.Verified
		v, state = accept(t, in)
		if v.Manifest().Generation != g {
			t.Errorf("generation %d, want %d", v.Manifest().Generation, g)
		}
	}
}

func TestVerifyBins(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	bin := r.UseBins(trusttest.Node)
	in := r.Input()
	in.Stored = state
	v, state := accept(t, in)
	if v.Trust().Versions[bin] != 1 || len(v.Trust().KeyIDs[bin]) != 1 {
		t.Errorf("trust: %+v", v.Trust())
	}
	r.Put(bin, trusttest.Node, trusttest.Manifest(trusttest.Node, 3, "in a bin"))
	r.Targets[bin].Signed.Version++
	r.SaveTargets(bin)
	r.Seal()
	in = r.Input()
	in.Stored = state
	if v, _ := accept(t, in); v.Manifest().Generation != 3 {
		t.Errorf("generation %d", v.Manifest().Generation)
	}
}

// A node that slept through many rotations walks all roots, whichever keys are left.
func TestVerifyRootRotations(t *testing.T) {
	r := trusttest.New(t)
	_, early := accept(t, r.Input())
	for i := range 30 {
		r.NextRoot(func() {
			r.SetKeys("root", 1, trusttest.Key("root "+string(rune('a'+i))))
			r.SetKeys("timestamp", 1, trusttest.Key("timestamp "+string(rune('a'+i))))
		})
		r.SealTimestamp()
	}
	for name, state := range map[string]trust.State{"fresh": {}, "early": early} {
		in := r.Input()
		in.Stored = state
		v, next := accept(t, in)
		if v.Trust().RootVersion != 31 {
			t.Errorf("%s: root version %d", name, v.Trust().RootVersion)
		}
		// The stored roots alone lead there again.
		in.Stored = reload(t, next)
		in.Repository = r.Files().With(trust.RootPath(2), nil)
		accept(t, in)
	}
}

// A bootstrap root that is newer than the first one starts the walk later.
func TestVerifyNewerBootstrapRoot(t *testing.T) {
	r := trusttest.New(t)
	for range 3 {
		r.NextRoot(func() { r.SetKeys("root", 1, trusttest.Key("new root")) })
	}
	_, state := accept(t, r.Input())
	in := r.Input()
	in.Stored = reload(t, state)
	in.BootstrapRoot, _ = r.Files().ReadFile(trust.RootPath(3))
	_, state = accept(t, in)
	in.Stored = reload(t, state)
	accept(t, in)
}

// A verified root is kept even if everything after it fails.
func TestRootIsKeptWhenTheRestFails(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	before := r.Files()
	r.NextRoot(func() { r.SetKeys("timestamp", 1, trusttest.Key("new timestamp")) })
	in := r.Input() // the timestamp is still signed by the old key
	in.Stored = state
	next := refuse(t, in, v1.ReasonUnsigned, "timestamp")

	// Now the repository hides the new root, and shows what was fine before.
	in.Repository, in.Stored = before, reload(t, next)
	refuse(t, in, v1.ReasonUnsigned, "timestamp")
	// So does the state that was never stored.
	in.Stored = next
	refuse(t, in, v1.ReasonUnsigned, "timestamp")
}

// Half of a commit moves nothing: what came before is still accepted, and what comes
// after is too.
func TestHalfPublishedCommitMovesNothing(t *testing.T) {
	r := trusttest.New(t)
	old := r.Files()
	_, state := accept(t, r.Input())
	r.Publish(trusttest.Node, trusttest.Manifest(trusttest.Node, 2, "second"))
	for _, path := range []string{"metadata/snapshot.json", "metadata/fleet.json", "targets/" + trust.TargetPath(trusttest.Team, trusttest.Node)} {
		data, _ := old.ReadFile(path)
		in := r.Input()
		in.Stored = state
		in.Repository = r.Files().With(path, data)
		next, err := func() (trust.State, error) { _, s, err := trust.Verify(in); return s, err }()
		if trust.ReasonOf(err) != v1.ReasonMixAndMatch {
			t.Errorf("%s: %v", path, err)
		}
		if !bytes.Equal(encodeState(t, next), encodeState(t, state)) {
			t.Errorf("%s: the state moved", path)
		}
		in.Repository, in.Stored = old, reload(t, next)
		accept(t, in)
		in.Repository = r.Files()
		accept(t, in)
	}
}

func TestVerifyIsPure(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	r.Publish(trusttest.Node, trusttest.Manifest(trusttest.Node, 2, "second"))
	r.NextRoot(func() {})
	in := r.Input()
	in.Stored = state
	before := encodeState(t, state)
	v1st, s1st := accept(t, in)
	v2nd, s2nd := accept(t, in)
	if !reflect.DeepEqual(v1st, v2nd) || !bytes.Equal(encodeState(t, s1st), encodeState(t, s2nd)) {
		t.Error("the same input gave another answer")
	}
	if !bytes.Equal(before, encodeState(t, state)) {
		t.Error("the stored state changed in the caller's hands")
	}
}

// Remembering what was verified before changes no answer.
func TestMemoChangesNoAnswer(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	steps := map[string]func(){
		"1 a new manifest":        func() { r.Publish(node, trusttest.Manifest(node, 2, "second")) },
		"2 another node's":        func() { r.Publish("gpu-002", trusttest.Manifest("gpu-002", 3, "other")) },
		"3 only a timestamp":      func() { r.SealTimestamp() },
		"4 bins":                  func() { r.UseBins(node) },
		"5 a timestamp over bins": func() { r.SealTimestamp() },
		"6 a new targets.json":    func() { r.Targets["targets"].Signed.Version++; r.SaveTargets("targets"); r.Seal() },
		"7 a new root":            func() { r.NextRoot(func() { r.SetKeys("snapshot", 1, evil) }); r.Seal() },
		"8 a timestamp after it":  func() { r.SealTimestamp() },
	}
	for _, name := range slices.Sorted(maps.Keys(steps)) {
		steps[name]()
		in := r.Input()
		in.Now = in.Now.Add(time.Minute)
		in.Stored = reload(t, state)
		long, nextLong := accept(t, in)
		in.Stored = state
		short, nextShort := accept(t, in)
		if !reflect.DeepEqual(short, long) {
			t.Errorf("%s: another answer", name)
		}
		if !bytes.Equal(encodeState(t, nextLong), encodeState(t, nextShort)) {
			t.Errorf("%s: another state", name)
		}
		state = nextShort
	}
}

// A team whose key was taken away isn't believed because it was before.
func TestMemoForgetsRevokedTeamKeys(t *testing.T) {
	r := trusttest.New(t)
	_, state := accept(t, r.Input())
	d := r.Targets["targets"].Signed.Delegations
	d.Roles = nil
	r.Delegate(team, trust.TeamPattern(team)).KeyIDs = []string{r.KeyID(trusttest.Key("targets"))}
	key, err := metadata.KeyFromPublicKey(trusttest.Key("targets").Public())
	if err != nil {
		t.Fatal(err)
	}
	d.Keys[r.KeyID(trusttest.Key("targets"))] = key
	r.Targets["targets"].Signed.Version++
	r.SaveTargets("targets")
	delete(r.Targets, team) // the team's file stays as it was
	r.Seal()
	in := r.Input()
	in.Stored = state
	refuse(t, in, v1.ReasonUnsigned, "fleet")
}

// Where the snapshot has no hashes, the bytes alone tell that a role isn't the one from before.
func TestMemoLooksAtTheBytes(t *testing.T) {
	r := trusttest.New(t)
	r.Snapshot.Signed.Meta["fleet.json"] = &metadata.MetaFiles{Version: 1}
	r.SaveSnapshot()
	r.SealTimestamp()
	_, state := accept(t, r.Input())
	r.SaveTargets(team, evil)
	r.SealTimestamp()
	in := r.Input()
	in.Stored = state
	refuse(t, in, v1.ReasonUnsigned, "fleet")
}

// The cheap way of verifying unchanged files gives the same answers as the long one.
func TestUnchangedFiles(t *testing.T) {
	r := trusttest.New(t)
	in := r.Input()
	first, state := accept(t, in)
	in.Stored, in.Now = state, trusttest.Start.Add(time.Hour)
	short, next := accept(t, in)
	in.Stored = reload(t, state)
	long, nextLong := accept(t, in)
	if short.Digest() != first.Digest() || !reflect.DeepEqual(short, long) {
		t.Error("another answer for unchanged files")
	}
	if !bytes.Equal(encodeState(t, next), encodeState(t, nextLong)) {
		t.Error("another state for unchanged files")
	}
	late := trusttest.Start.Add(trusttest.TimestampLife + time.Minute)
	in.Stored, in.Now = next, late
	next = refuse(t, in, v1.ReasonExpired, "timestamp")
	in.Stored, in.Now = next, trusttest.Start
	refuse(t, in, v1.ReasonExpired, "timestamp")
}

func TestUnchangedFilesButAnotherNodeOrTeam(t *testing.T) {
	r := trusttest.New(t)
	in := r.Input()
	_, in.Stored = accept(t, in)
	in.Node = "gpu-002"
	refuse(t, in, v1.ReasonNoManifest, "manifest")
	in.Node, in.Team = trusttest.Node, "other"
	refuse(t, in, v1.ReasonNotDelegated, "targets")
	in.Team, in.BootstrapRoot = trusttest.Team, []byte("{}")
	refuse(t, in, v1.ReasonBootstrapRoot, "root")
}

// The state of a renamed node says nothing of the generations of its new name.
func TestRenamedNodeStartsItsOwnGenerations(t *testing.T) {
	r := trusttest.New(t)
	r.Publish(trusttest.Node, trusttest.Manifest(trusttest.Node, 7, "high"))
	_, state := accept(t, r.Input())
	r.Publish("gpu-002", trusttest.Manifest("gpu-002", 3, "low"))
	in := r.Input()
	in.Stored, in.Node = reload(t, state), "gpu-002"
	accept(t, in)
}

func TestWanted(t *testing.T) {
	r := trusttest.New(t)
	r.UseBins(trusttest.Node)
	all := r.Files()
	only := trusttest.Files{}
	for _, path := range trust.Wanted(trusttest.Team, trusttest.Node) {
		if path == "metadata/*.root.json" {
			path = trust.RootPath(1)
		}
		if data, ok := all[path]; ok {
			only[path] = data
		}
	}
	in := r.Input()
	in.Repository = only
	accept(t, in)
}

func TestTargetPath(t *testing.T) {
	if got := trust.TargetPath("fleet", "gpu-001"); got != "nodes/fleet/44/gpu-001.yaml" {
		t.Errorf("got %s", got)
	}
	team, node, err := trust.ParseTargetPath("nodes/fleet/44/gpu-001.yaml")
	if err != nil || team != "fleet" || node != "gpu-001" {
		t.Errorf("got %s %s %v", team, node, err)
	}
	for _, bad := range []string{
		"", "nodes/fleet/00/gpu-001.yaml", "nodes/fleet/44/gpu-001", "nodes/root/f6/gpu-001.yaml", "nodes/fleet/44/../gpu-001.yaml",
		"nodes/Fleet/f6/gpu-001.yaml", "/nodes/fleet/44/gpu-001.yaml", "nodes/fleet/44/gpu-001.yaml/", "nodes/fleet-bin-0a/f6/gpu-001.yaml",
	} {
		if _, _, err := trust.ParseTargetPath(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
