// Package trusttest makes signed branches for tests: good ones for whoever needs
// something to verify, and every kind of bad one, because it holds all keys and signs
// whatever it is told to. It shares no code with the signer.
package trusttest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
)

// Files are a signed branch in memory. They implement trust.Files.
type Files map[string][]byte

// ReadFile implements trust.Files.
func (f Files) ReadFile(path string) ([]byte, bool) {
	data, ok := f[path]
	return data, ok
}

// Clone copies the map, not the bytes.
func (f Files) Clone() Files { return maps.Clone(f) }

// With is a copy with one file replaced; nil removes it.
func (f Files) With(path string, data []byte) Files {
	c := f.Clone()
	if c[path] = data; data == nil {
		delete(c, path)
	}
	return c
}

// The team and node that New makes a manifest for, and its expiries from Start on.
const (
	Team = "fleet"
	Node = "gpu-001"

	OfflineLife   = 365 * 24 * time.Hour
	TeamLife      = 90 * 24 * time.Hour
	SnapshotLife  = 60 * 24 * time.Hour
	TimestampLife = 3 * 24 * time.Hour
)

// Start is when New signed everything.
var Start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// Repo is a signed branch and the keys of all its roles. The metadata may be
// changed at will; the Save methods sign and write it.
type Repo struct {
	t     testing.TB
	files Files

	// Keys are the private keys that sign a role.
	Keys      map[string][]ed25519.PrivateKey
	Root      *metadata.Metadata[metadata.RootType]
	Targets   map[string]*metadata.Metadata[metadata.TargetsType] // targets.json, teams, bins
	Snapshot  *metadata.Metadata[metadata.SnapshotType]
	Timestamp *metadata.Metadata[metadata.TimestampType]
}

// Key is a key that depends on its name only.
func Key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("key of " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// New is a branch with one manifest, every version 1.
func New(t testing.TB) *Repo {
	t.Helper()
	r := &Repo{
		t: t, files: Files{}, Keys: map[string][]ed25519.PrivateKey{},
		Root:      metadata.Root(Start.Add(OfflineLife)),
		Targets:   map[string]*metadata.Metadata[metadata.TargetsType]{"targets": metadata.Targets(Start.Add(OfflineLife))},
		Snapshot:  metadata.Snapshot(Start.Add(SnapshotLife)),
		Timestamp: metadata.Timestamp(Start.Add(TimestampLife)),
	}
	r.Root.Signed.ConsistentSnapshot = false
	for _, role := range metadata.TOP_LEVEL_ROLE_NAMES {
		r.SetKeys(role, 1, Key(role))
	}
	r.Targets["targets"].Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	r.Delegate(Team, trust.TeamPattern(Team))
	r.Put(Team, Node, Manifest(Node, 1, "first"))
	r.SaveRoot()
	r.SaveTargets("targets")
	r.SaveTargets(Team)
	r.Snapshot.Signed.Version, r.Timestamp.Signed.Version = 0, 0
	r.Seal()
	return r
}

// Manifest is a small valid manifest; text makes one differ from another.
func Manifest(node string, generation int64, text string) []byte {
	return fmt.Appendf(nil, `apiVersion: fleet.gpuaas.dev/v1
kind: NodeManifest
node: %s
generation: %d
source:
  repo: https://git.example.com/fleet.git
  commit: "0123456789012345678901234567890123456789"
tasks:
  - id: env
    type: runtime.write_env_file
    with:
      path: /etc/gpuaas/test.env
      env:
        TEXT: %q
`, node, generation, text)
}

// Files is a copy of the branch as it is now.
func (r *Repo) Files() Files { return r.files.Clone() }

// Bootstrap is the first root.
func (r *Repo) Bootstrap() []byte { return r.files[trust.RootPath(1)] }

// Input is that of the node of New, at Start.
func (r *Repo) Input() trust.Input {
	return trust.Input{
		BootstrapRoot: r.Bootstrap(), Repository: r.Files(),
		Now: Start, Team: Team, Node: Node,
	}
}

// SetKeys gives a top-level role its keys in the root; SaveRoot publishes that.
func (r *Repo) SetKeys(role string, threshold int, keys ...ed25519.PrivateKey) {
	ids := []string{}
	for _, k := range keys {
		key, id := r.public(k)
		r.Root.Signed.Keys[id], ids = key, append(ids, id)
	}
	r.Root.Signed.Roles[role] = &metadata.Role{KeyIDs: ids, Threshold: threshold}
	r.Keys[role] = keys
}

func (r *Repo) public(k ed25519.PrivateKey) (*metadata.Key, string) {
	r.t.Helper()
	key, err := metadata.KeyFromPublicKey(k.Public())
	r.must(err)
	id, err := key.ID()
	r.must(err)
	return key, id
}

// KeyID is the TUF id of a key.
func (r *Repo) KeyID(k ed25519.PrivateKey) string {
	_, id := r.public(k)
	return id
}

// Delegate lets a new role sign paths, with one key of the role's name.
func (r *Repo) Delegate(role string, paths ...string) *metadata.DelegatedRole {
	d := r.Targets["targets"].Signed.Delegations
	key, id := r.public(Key(role))
	d.Keys[id] = key
	d.Roles = append(d.Roles, metadata.DelegatedRole{Name: role, KeyIDs: []string{id}, Threshold: 1, Terminating: true, Paths: paths})
	r.Keys[role] = []ed25519.PrivateKey{Key(role)}
	r.Targets[role] = metadata.Targets(Start.Add(TeamLife))
	return &d.Roles[len(d.Roles)-1]
}

// Put writes a manifest and lists it in a role, unsigned yet.
func (r *Repo) Put(role, node string, data []byte) {
	r.PutAt(role, trust.TargetPath(Team, node), data)
}

// PutAt is Put for any path.
func (r *Repo) PutAt(role, path string, data []byte) {
	sum := sha256.Sum256(data)
	r.files[trust.TargetsDir+path] = data
	r.Targets[role].Signed.Targets[path] = &metadata.TargetFiles{
		Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]},
	}
}

// Write replaces a file of the branch.
func (r *Repo) Write(path string, data []byte) { r.files[path] = data }

// NextRoot signs the next version of the root with its old keys and its new
// ones; change edits it.
func (r *Repo) NextRoot(change func()) {
	old := r.Keys["root"]
	r.Root.Signed.Version++
	change()
	r.SaveRoot(append(old, r.Keys["root"]...)...)
}

// SaveRoot signs the root, with its own keys if none are given, as <version>.root.json and
// root.json.
func (r *Repo) SaveRoot(keys ...ed25519.PrivateKey) {
	data := Sign(r.t, r.Root, r.or(keys, "root"))
	r.files[trust.RootPath(r.Root.Signed.Version)] = data
	r.files[trust.MetadataPath("root")] = data
}

// SaveTargets signs targets.json, a team's role or a bin.
func (r *Repo) SaveTargets(role string, keys ...ed25519.PrivateKey) {
	r.files[trust.MetadataPath(role)] = Sign(r.t, r.Targets[role], r.or(keys, role))
}

// SaveSnapshot signs the snapshot as it is.
func (r *Repo) SaveSnapshot(keys ...ed25519.PrivateKey) {
	r.files[trust.MetadataPath("snapshot")] = Sign(r.t, r.Snapshot, r.or(keys, "snapshot"))
}

// SaveTimestamp signs the timestamp as it is.
func (r *Repo) SaveTimestamp(keys ...ed25519.PrivateKey) {
	r.files[trust.MetadataPath("timestamp")] = Sign(r.t, r.Timestamp, r.or(keys, "timestamp"))
}

// Seal publishes what was saved: the next snapshot and the next timestamp over it.
func (r *Repo) Seal() {
	r.Snapshot.Signed.Version++
	for role, m := range r.Targets {
		if data := r.files[trust.MetadataPath(role)]; data != nil {
			r.Snapshot.Signed.Meta[role+".json"] = Meta(m.Signed.Version, data)
		}
	}
	r.SaveSnapshot()
	r.SealTimestamp()
}

// SealTimestamp publishes the snapshot that was saved.
func (r *Repo) SealTimestamp() {
	r.Timestamp.Signed.Version++
	r.Timestamp.Signed.Meta["snapshot.json"] = Meta(r.Snapshot.Signed.Version, r.files[trust.MetadataPath("snapshot")])
	r.SaveTimestamp()
}

// Publish is what an honest signer does: a manifest changed.
func (r *Repo) Publish(node string, data []byte) {
	r.Put(Team, node, data)
	r.Targets[Team].Signed.Version++
	r.SaveTargets(Team)
	r.Seal()
}

// UseBins moves the team of New to hash bins. The bins that are not asked for are not made.
func (r *Repo) UseBins(node string) (bin string) {
	team := r.Targets[Team]
	key, id := r.public(Key(Team))
	team.Signed.Delegations = &metadata.Delegations{
		Keys: map[string]*metadata.Key{id: key},
		SuccinctRoles: &metadata.SuccinctRoles{
			KeyIDs: []string{id}, Threshold: 1, BitLength: trust.BinBits, NamePrefix: trust.BinPrefix(Team),
		},
	}
	bin = trust.BinOf(Team, trust.TargetPath(Team, node))
	r.Keys[bin] = r.Keys[Team]
	r.Targets[bin] = metadata.Targets(Start.Add(TeamLife))
	r.Targets[bin].Signed.Targets, team.Signed.Targets = team.Signed.Targets, r.Targets[bin].Signed.Targets
	team.Signed.Version++
	r.SaveTargets(bin)
	r.SaveTargets(Team)
	r.Seal()
	return bin
}

func (r *Repo) or(keys []ed25519.PrivateKey, role string) []ed25519.PrivateKey {
	if len(keys) > 0 {
		return keys
	}
	return r.Keys[role]
}

func (r *Repo) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// Meta is a snapshot's or timestamp's entry for a file.
func Meta(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{Version: version, Length: int64(len(data)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}

// Sign gives the bytes of metadata with one signature a key; a key twice signs once.
func Sign[T metadata.Roles](t testing.TB, m *metadata.Metadata[T], keys []ed25519.PrivateKey) []byte {
	t.Helper()
	m.ClearSignatures()
	var done [][]byte
	for _, k := range keys {
		if containsKey(done, k) {
			continue
		}
		done = append(done, k)
		s, err := signature.LoadED25519Signer(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Sign(s); err != nil {
			t.Fatal(err)
		}
	}
	data, err := m.ToBytes(true)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func containsKey(list [][]byte, k []byte) bool {
	for _, x := range list {
		if bytes.Equal(x, k) {
			return true
		}
	}
	return false
}
