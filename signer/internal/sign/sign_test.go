package sign_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
	"github.com/gpuaas/node-agent/signer/internal/sign"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 987654321, time.FixedZone("", 3600))

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signers(roles ...string) keys.Signers {
	s := keys.Signers{}
	for _, r := range append([]string{"root", "targets", "snapshot", "timestamp"}, roles...) {
		s[r] = []crypto.Signer{key(r)}
	}
	return s
}

// everyday are the keys that an everyday update needs.
func everyday(teams ...string) keys.Signers {
	s := signers(teams...)
	delete(s, "root")
	delete(s, "targets")
	return s
}

func manifest(node string, generation int64) []byte {
	return fmt.Appendf(nil, `apiVersion: fleet.gpuaas.dev/v1
kind: NodeManifest
node: %s
generation: %d
source:
  repo: https://git.example.com/fleet.git
  commit: "0123456789012345678901234567890123456789"
`, node, generation)
}

func nodeID(i int) string { return fmt.Sprintf("gpu-%06d", i) }

// fleet is a signed branch that grows.
type fleet struct {
	t     testing.TB
	root  []byte
	files sign.Files
	now   time.Time
}

func newFleet(t testing.TB, teams ...string) *fleet {
	t.Helper()
	files, err := sign.Init(sign.DefaultInit(signers(teams...), start, v1.Expiries{}))
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, root: files["metadata/root.json"], files: files, now: start}
}

func (f *fleet) open() *sign.Base {
	f.t.Helper()
	base, err := sign.Open(f.root, f.files)
	if err != nil {
		f.t.Fatal(err)
	}
	return base
}

// apply publishes what an update made.
func (f *fleet) apply(changed sign.Files, removed []string) {
	next := maps.Clone(f.files)
	maps.Copy(next, changed)
	for _, path := range removed {
		delete(next, path)
	}
	f.files = next
}

func (f *fleet) update(changes map[string][]byte, removals []string, teams ...string) (sign.Files, []string) {
	f.t.Helper()
	changed, removed, err := sign.Update(f.open(), changes, removals, everyday(teams...), f.now, v1.Expiries{})
	if err != nil {
		f.t.Fatal(err)
	}
	before := f.files
	f.apply(changed, removed)
	if _, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now, Previous: before}); err != nil {
		f.t.Fatalf("the update doesn't verify: %v", err)
	}
	return changed, removed
}

func (f *fleet) nodes(team string, from, to int, generation int64) map[string][]byte {
	out := map[string][]byte{}
	for i := from; i < to; i++ {
		out[trust.TargetPath(team, nodeID(i))] = manifest(nodeID(i), generation)
	}
	return out
}

func (f *fleet) verify(team, node string) (trust.Verified, error) {
	v, _, err := trust.Verify(trust.Input{BootstrapRoot: f.root, Repository: f.files, Now: f.now, Team: team, Node: node})
	return v, err
}

func names(files sign.Files) []string {
	return slices.Sorted(maps.Keys(files))
}

func TestInitVerifies(t *testing.T) {
	f := newFleet(t, "fleet", "research")
	want := []string{
		"metadata/1.root.json", "metadata/fleet.json", "metadata/research.json", "metadata/root.json",
		"metadata/snapshot.json", "metadata/targets.json", "metadata/timestamp.json",
	}
	if got := names(f.files); !slices.Equal(got, want) {
		t.Errorf("files %q", got)
	}
	sum, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: start})
	if err != nil {
		t.Fatal(err)
	}
	if sum != (trust.Summary{Root: 1, Timestamp: 1, Snapshot: 1, Teams: 2}) {
		t.Errorf("summary %+v", sum)
	}
	if _, err := f.verify("fleet", "gpu-1"); trust.ReasonOf(err) != v1.ReasonNoManifest {
		t.Errorf("got %v", err)
	}
	if g := sign.NextGeneration(f.open()); g != 2 {
		t.Errorf("next generation %d", g)
	}
}

func TestInitRefuses(t *testing.T) {
	base := func() sign.InitOptions { return sign.DefaultInit(signers("fleet"), start, v1.Expiries{}) }
	for _, c := range []struct {
		name, want string
		edit       func(*sign.InitOptions)
	}{
		{"too few signers", "cannot sign root: it needs 2", func(o *sign.InitOptions) {
			o.Root.Keys = append(o.Root.Keys, key("root 2").Public())
			o.Root.Threshold = 2
		}},
		{"threshold above keys", "between 1 and", func(o *sign.InitOptions) { o.Timestamp.Threshold = 2 }},
		{"threshold 0", "between 1 and", func(o *sign.InitOptions) { o.Snapshot.Threshold = 0 }},
		{"one key twice", "given twice", func(o *sign.InitOptions) { o.Targets.Keys = append(o.Targets.Keys, key("targets").Public()) }},
		{"no signer", "cannot sign fleet", func(o *sign.InitOptions) { delete(o.Signers, "fleet") }},
		{"foreign signer", "cannot sign timestamp", func(o *sign.InitOptions) { o.Signers["timestamp"] = []crypto.Signer{key("evil")} }},
		{"bad team", "TUF role", func(o *sign.InitOptions) { o.Teams[0].Name = "snapshot" }},
		{"bin as team", "hash bins", func(o *sign.InitOptions) { o.Teams[0].Name = "fleet-bin-00" }},
		{"team twice", "already", func(o *sign.InitOptions) { o.Teams = append(o.Teams, o.Teams[0]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := base()
			c.edit(&o)
			if _, err := sign.Init(o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Two of three may sign root; any two make a root that nodes accept.
func TestThresholds(t *testing.T) {
	three := []crypto.Signer{key("r1"), key("r2"), key("r3")}
	o := sign.DefaultInit(signers("fleet"), start, v1.Expiries{})
	o.Root = sign.AuthorityOf(three)
	o.Root.Threshold = 2
	for _, pair := range [][]crypto.Signer{{three[0], three[1]}, {three[2], three[0]}, three} {
		o.Signers["root"] = pair
		files, err := sign.Init(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.VerifyAll(files["metadata/root.json"], files, trust.AllOptions{Now: start}); err != nil {
			t.Error(err)
		}
	}
}

func TestUpdateChangesOnlyWhatItMust(t *testing.T) {
	f := newFleet(t, "fleet", "research")
	both := f.nodes("fleet", 0, 3, 2)
	maps.Copy(both, f.nodes("research", 0, 1, 2))
	f.update(both, nil, "fleet", "research")

	// The keys of the other team aren't needed, nor those of root and targets.
	one := trust.TargetPath("fleet", nodeID(1))
	changed, removed := f.update(map[string][]byte{one: manifest(nodeID(1), 3)}, []string{trust.TargetPath("fleet", nodeID(2))}, "fleet")
	want := []string{"metadata/fleet.json", "metadata/snapshot.json", "metadata/timestamp.json", "targets/" + one}
	if got := names(changed); !slices.Equal(got, want) {
		t.Errorf("changed %q", got)
	}
	if want := []string{"targets/" + trust.TargetPath("fleet", nodeID(2))}; !slices.Equal(removed, want) {
		t.Errorf("removed %q", removed)
	}
	for node, generation := range map[string]int64{nodeID(0): 2, nodeID(1): 3} {
		v, err := f.verify("fleet", node)
		if err != nil || v.Manifest().Generation != generation {
			t.Errorf("%s: %v", node, err)
		}
	}
	if _, err := f.verify("fleet", nodeID(2)); trust.ReasonOf(err) != v1.ReasonNoManifest {
		t.Errorf("the removed node: %v", err)
	}
	if _, err := f.verify("research", nodeID(0)); err != nil {
		t.Errorf("the other team: %v", err)
	}

	// Nothing to change: snapshot and timestamp are signed again.
	changed, _ = f.update(nil, nil)
	if got := names(changed); !slices.Equal(got, []string{"metadata/snapshot.json", "metadata/timestamp.json"}) {
		t.Errorf("changed %q", got)
	}
	if g := sign.NextGeneration(f.open()); g != 5 {
		t.Errorf("next generation %d", g)
	}
}

func TestUpdateRefuses(t *testing.T) {
	f := newFleet(t, "fleet")
	f.update(f.nodes("fleet", 0, 2, 2), nil, "fleet")
	path := trust.TargetPath("fleet", nodeID(0))
	for _, c := range []struct {
		name, want string
		changes    map[string][]byte
		removals   []string
		signers    keys.Signers
	}{
		{"unknown team", "targets key", map[string][]byte{trust.TargetPath("other", "a"): []byte("x")}, nil, everyday("fleet", "other")},
		{"bad path", "no manifest's path", map[string][]byte{"nodes/fleet/zz/a.yaml": []byte("x")}, nil, everyday("fleet")},
		{"escaping path", "no manifest's path", nil, []string{"../metadata/root.json"}, everyday("fleet")},
		{"empty manifest", "0 bytes", map[string][]byte{path: nil}, nil, everyday("fleet")},
		{"both", "both changed and removed", map[string][]byte{path: []byte("x")}, []string{path}, everyday("fleet")},
		{"no team key", "cannot sign fleet", map[string][]byte{path: []byte("x")}, nil, everyday()},
		{"no timestamp key", "cannot sign timestamp", nil, nil, keys.Signers{"snapshot": {key("snapshot")}}},
		{"the wrong team key", "cannot sign fleet", map[string][]byte{path: []byte("x")}, nil, func() keys.Signers {
			s := everyday()
			s["fleet"] = []crypto.Signer{key("evil")}
			return s
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := sign.Update(f.open(), c.changes, c.removals, c.signers, f.now, v1.Expiries{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Whoever can push to the branch can't slip something in and have it signed.
func TestUpdateSignsNothingForeign(t *testing.T) {
	f := newFleet(t, "fleet")
	f.update(f.nodes("fleet", 0, 2, 2), nil, "fleet")
	honest := f.files
	evil := newFleet(t, "fleet") // same keys: an older state
	for _, path := range []string{"metadata/fleet.json", "metadata/snapshot.json", "metadata/targets.json", "metadata/timestamp.json"} {
		tampered := bytes.Replace(honest[path], []byte(`"version": `), []byte(`"version": 1`), 1)
		for _, data := range [][]byte{tampered, evil.files[path], []byte("{}"), nil} {
			if bytes.Equal(data, honest[path]) {
				continue
			}
			f.files = maps.Clone(honest)
			if f.files[path] = data; data == nil {
				delete(f.files, path)
			}
			base, err := sign.Open(f.root, f.files)
			if err != nil {
				continue
			}
			if _, _, err := sign.Update(base, f.nodes("fleet", 5, 6, 3), nil, everyday("fleet"), f.now, v1.Expiries{}); err == nil {
				t.Errorf("built on a foreign %s", path)
			}
		}
	}
	other, err := sign.Init(sign.DefaultInit(keys.Signers{
		"root": {key("e1")}, "targets": {key("e2")}, "snapshot": {key("e3")}, "timestamp": {key("e4")}, "fleet": {key("e5")},
	}, start, v1.Expiries{}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sign.Open(f.root, other); err == nil {
		t.Error("opened a branch of other keys")
	}
}

func TestSameInputSameBytes(t *testing.T) {
	make := func() sign.Files {
		f := newFleet(t, "fleet", "research")
		f.update(f.nodes("fleet", 0, 600, 2), nil, "fleet")
		f.update(f.nodes("fleet", 0, 40, 3), []string{trust.TargetPath("fleet", nodeID(50)), trust.TargetPath("fleet", nodeID(51))}, "fleet")
		return f.files
	}
	a, b := make(), make()
	if !maps.EqualFunc(a, b, bytes.Equal) {
		t.Error("the same input gave other bytes")
	}
}

func TestTimesAreWholeSecondsUTC(t *testing.T) {
	f := newFleet(t, "fleet")
	m, err := metadata.Timestamp().FromBytes(f.files["metadata/timestamp.json"])
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 3, 4, 11, 0, 0, 0, time.UTC); !m.Signed.Expires.Equal(want) {
		t.Errorf("expires %s", m.Signed.Expires)
	}
	for path, data := range f.files {
		if !bytes.Contains(data, []byte(`:00Z"`)) {
			t.Errorf("%s has no whole second in UTC", path)
		}
	}
}

func TestKeyIDIsGoTUFs(t *testing.T) {
	public := key("x").Public()
	k, err := metadata.KeyFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	want, err := k.ID()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.ID(public); err != nil || got != want {
		t.Errorf("got %s %v, want %s", got, err, want)
	}
}

// One node more than fits moves the team to bins, for good; nodes notice nothing.
func TestBins(t *testing.T) {
	f := newFleet(t, "fleet")
	f.update(f.nodes("fleet", 0, sign.MaxInRole, 2), nil, "fleet")
	if _, ok := f.files["metadata/fleet-bin-00.json"]; ok {
		t.Fatal("bins before they are needed")
	}
	_, state, err := trust.Verify(trust.Input{BootstrapRoot: f.root, Repository: f.files, Now: f.now, Team: "fleet", Node: nodeID(7)})
	if err != nil {
		t.Fatal(err)
	}
	f.update(f.nodes("fleet", sign.MaxInRole, sign.MaxInRole+1, 3), nil, "fleet")
	bins := 0
	for path := range f.files {
		if strings.HasPrefix(path, "metadata/fleet-bin-") {
			bins++
		}
	}
	if bins != 256 {
		t.Fatalf("%d bins", bins)
	}
	v, _, err := trust.Verify(trust.Input{BootstrapRoot: f.root, Stored: state, Repository: f.files, Now: f.now, Team: "fleet", Node: nodeID(7)})
	if err != nil || v.Manifest().Generation != 2 {
		t.Fatalf("after the move: %v", err)
	}
	// A change touches one bin and not the team's role.
	path := trust.TargetPath("fleet", nodeID(7))
	changed, _ := f.update(map[string][]byte{path: manifest(nodeID(7), 4)}, nil, "fleet")
	bin := trust.BinOf("fleet", path)
	want := []string{"metadata/" + bin + ".json", "metadata/snapshot.json", "metadata/timestamp.json", "targets/" + path}
	if got := names(changed); !slices.Equal(got, want) {
		t.Errorf("changed %q", got)
	}
	// And there is no way back.
	var all []string
	for path := range f.nodes("fleet", 0, sign.MaxInRole, 0) {
		all = append(all, path)
	}
	f.update(nil, all, "fleet")
	if v, err := f.verify("fleet", nodeID(sign.MaxInRole)); err != nil || v.Manifest().Generation != 3 {
		t.Errorf("the last node: %v", err)
	}
	sum, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now})
	if err != nil || sum.Bins != 256 || sum.Manifests != 1 {
		t.Errorf("%+v %v", sum, err)
	}
}

func TestAddTeam(t *testing.T) {
	f := newFleet(t, "fleet")
	all := signers("fleet", "research")
	team := sign.Team{Name: "research", Authority: sign.AuthorityOf(all["research"])}
	if _, err := sign.AddTeam(f.open(), team, everyday("fleet", "research"), f.now, v1.Expiries{}); err == nil || !strings.Contains(err.Error(), "cannot sign targets") {
		t.Errorf("without the targets key: %v", err)
	}
	files, err := sign.AddTeam(f.open(), team, all, f.now, v1.Expiries{})
	if err != nil {
		t.Fatal(err)
	}
	f.apply(files, nil)
	f.update(f.nodes("research", 0, 1, 3), nil, "research")
	if _, err := f.verify("research", nodeID(0)); err != nil {
		t.Error(err)
	}
	if _, err := sign.AddTeam(f.open(), team, all, f.now, v1.Expiries{}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("twice: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	f := newFleet(t, "fleet")
	f.update(f.nodes("fleet", 0, sign.MaxInRole+1, 2), nil, "fleet")
	refresh := func(after time.Duration, with keys.Signers) ([]string, []string) {
		t.Helper()
		f.now = start.Add(after)
		files, overdue, err := sign.Refresh(f.open(), with, f.now, v1.Expiries{})
		if err != nil {
			t.Fatal(err)
		}
		before := f.files
		f.apply(files, nil)
		if _, err := trust.VerifyAll(f.root, f.files, trust.AllOptions{Now: f.now, Previous: before}); err != nil {
			t.Fatal(err)
		}
		return names(files), overdue
	}
	const day = 24 * time.Hour
	// After three days even an expired timestamp can be mended.
	changed, overdue := refresh(5*day, everyday())
	if !slices.Equal(changed, []string{"metadata/timestamp.json"}) || overdue != nil {
		t.Errorf("changed %q, overdue %q", changed, overdue)
	}
	changed, overdue = refresh(61*day, everyday())
	if !slices.Equal(changed, []string{"metadata/snapshot.json", "metadata/timestamp.json"}) || !slices.Equal(overdue, []string{"fleet"}) {
		t.Errorf("changed %q, overdue %q", changed, overdue)
	}
	changed, overdue = refresh(62*day, everyday("fleet"))
	if len(changed) != 256+3 || overdue != nil {
		t.Errorf("changed %d files, overdue %q", len(changed), overdue)
	}
	if _, overdue = refresh(130*day, everyday("fleet")); overdue != nil {
		t.Errorf("overdue %q", overdue)
	}
	if _, overdue = refresh(250*day, everyday("fleet")); !slices.Equal(overdue, []string{"root", "targets"}) {
		t.Errorf("overdue %q", overdue)
	}
	changed, overdue = refresh(251*day, signers("fleet"))
	if !slices.Equal(changed, []string{
		"metadata/2.root.json", "metadata/root.json", "metadata/snapshot.json", "metadata/targets.json", "metadata/timestamp.json",
	}) || overdue != nil {
		t.Errorf("changed %q, overdue %q", changed, overdue)
	}
}

func TestInspect(t *testing.T) {
	f := newFleet(t, "fleet", "research")
	f.update(f.nodes("fleet", 0, sign.MaxInRole+1, 2), nil, "fleet")
	in, err := sign.Inspect(f.files)
	if err != nil {
		t.Fatal(err)
	}
	if in.Manifests != sign.MaxInRole+1 || len(in.Roles) != 6 {
		t.Errorf("%d manifests, %d roles", in.Manifests, len(in.Roles))
	}
	for _, r := range in.Roles {
		if len(r.KeyIDs) != 1 || r.Threshold != 1 || !slices.Equal(r.SignedBy, r.KeyIDs) || r.Signs == "" {
			t.Errorf("%+v", r)
		}
	}
	if fleet := in.Roles[2]; fleet.Name != "fleet" || fleet.Bins != 256 || fleet.Manifests != sign.MaxInRole+1 {
		t.Errorf("%+v", fleet)
	}
	for path := range f.files {
		if !strings.HasPrefix(path, "metadata/") || strings.HasSuffix(path, ".root.json") {
			continue
		}
		broken := maps.Clone(f.files)
		broken[path] = []byte(`{"signed":{"_type":"root","roles":{"root":null}}}`)
		if _, err := sign.Inspect(broken); err == nil {
			t.Errorf("%s broken, and no error", path)
		}
	}
}
