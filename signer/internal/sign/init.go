package sign

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/keys"
)

// Files are files of the signed branch, by path. They implement trust.Files.
type Files map[string][]byte

// ReadFile implements trust.Files.
func (f Files) ReadFile(path string) ([]byte, bool) {
	data, ok := f[path]
	return data, ok
}

// Team is one delegated role.
type Team struct {
	Name string
	Authority
}

// InitOptions of Init.
type InitOptions struct {
	Root, Targets, Snapshot, Timestamp Authority
	// Teams are the delegated roles; each gets an empty first version.
	Teams []Team
	// Signers sign the first versions of everything, by role name.
	Signers  keys.Signers
	Now      time.Time
	Expiries v1.Expiries
}

// DefaultInit gives every role the keys that are at hand for it, threshold 1; roles
// that are none of TUF's own become teams.
func DefaultInit(signers keys.Signers, now time.Time, expiries v1.Expiries) InitOptions {
	opts := InitOptions{
		Root:      AuthorityOf(signers[metadata.ROOT]),
		Targets:   AuthorityOf(signers[metadata.TARGETS]),
		Snapshot:  AuthorityOf(signers[metadata.SNAPSHOT]),
		Timestamp: AuthorityOf(signers[metadata.TIMESTAMP]),
		Signers:   signers, Now: now, Expiries: expiries,
	}
	for _, role := range slices.Sorted(maps.Keys(signers)) {
		if !slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], role) {
			opts.Teams = append(opts.Teams, Team{Name: role, Authority: AuthorityOf(signers[role])})
		}
	}
	return opts
}

// Init makes the first files of a signed branch. metadata/root.json among them is the
// bootstrap root of the nodes.
func Init(opts InitOptions) (Files, error) {
	p := newPen(opts.Signers, opts.Now, opts.Expiries)
	out := Files{}
	root, data, err := initRoot(p, opts)
	if err != nil {
		return nil, err
	}
	out[trust.MetadataPath(metadata.ROOT)], out[trust.RootPath(1)] = data, data

	targets := metadata.Targets(p.expiry(metadata.TARGETS))
	targets.Signed.Delegations = &metadata.Delegations{Keys: map[string]*metadata.Key{}, Roles: []metadata.DelegatedRole{}}
	snapshot := metadata.Snapshot(p.expiry(metadata.SNAPSHOT))
	for _, team := range opts.Teams {
		if err := delegate(&targets.Signed, team); err != nil {
			return nil, err
		}
		data, err := encode(p, team.Name, metadata.Targets(p.expiry(team.Name)), idsOf(&targets.Signed, team.Name), team.Threshold)
		if err != nil {
			return nil, err
		}
		put(out, &snapshot.Signed, team.Name, 1, data)
	}
	role := root.Roles[metadata.TARGETS]
	if data, err = encode(p, metadata.TARGETS, targets, role.KeyIDs, role.Threshold); err != nil {
		return nil, err
	}
	put(out, &snapshot.Signed, metadata.TARGETS, 1, data)
	timestamp := metadata.Timestamp(p.expiry(metadata.TIMESTAMP))
	return out, seal(p, root, snapshot, timestamp, out)
}

func initRoot(p pen, opts InitOptions) (*metadata.RootType, []byte, error) {
	root := metadata.Root(p.expiry(metadata.ROOT))
	root.Signed.ConsistentSnapshot = false
	for role, a := range map[string]Authority{
		metadata.ROOT: opts.Root, metadata.TARGETS: opts.Targets,
		metadata.SNAPSHOT: opts.Snapshot, metadata.TIMESTAMP: opts.Timestamp,
	} {
		byID, ids, err := a.tufKeys(role)
		if err != nil {
			return nil, nil, err
		}
		maps.Copy(root.Signed.Keys, byID)
		root.Signed.Roles[role] = &metadata.Role{KeyIDs: ids, Threshold: a.Threshold}
	}
	role := root.Signed.Roles[metadata.ROOT]
	data, err := encode(p, metadata.ROOT, root, role.KeyIDs, role.Threshold)
	return &root.Signed, data, err
}

// delegate adds a team to targets.json.
func delegate(targets *metadata.TargetsType, team Team) error {
	if err := trust.CheckTeam(team.Name); err != nil {
		return err
	}
	d := targets.Delegations
	if idsOf(targets, team.Name) != nil {
		return fmt.Errorf("team %s is delegated to already", team.Name)
	}
	if len(d.Roles) >= trust.MaxTeams {
		return fmt.Errorf("cannot add team %s: there are %d teams, as many as there may be", team.Name, len(d.Roles))
	}
	byID, ids, err := team.tufKeys(team.Name)
	if err != nil {
		return err
	}
	maps.Copy(d.Keys, byID)
	d.Roles = append(d.Roles, metadata.DelegatedRole{
		Name: team.Name, KeyIDs: ids, Threshold: team.Threshold, Terminating: true,
		Paths: []string{trust.TeamPattern(team.Name)},
	})
	return nil
}

func idsOf(targets *metadata.TargetsType, team string) []string {
	if d := delegationOf(targets, team); d != nil {
		return d.KeyIDs
	}
	return nil
}

func delegationOf(targets *metadata.TargetsType, team string) *metadata.DelegatedRole {
	if targets.Delegations == nil {
		return nil
	}
	for i := range targets.Delegations.Roles {
		if d := &targets.Delegations.Roles[i]; d.Name == team {
			return d
		}
	}
	return nil
}

// put adds a role's file and its entry in the snapshot.
func put(out Files, snapshot *metadata.SnapshotType, role string, version int64, data []byte) {
	out[trust.MetadataPath(role)] = data
	snapshot.Meta[role+".json"] = metaOf(version, data)
}

func metaOf(version int64, data []byte) *metadata.MetaFiles {
	sum := sha256.Sum256(data)
	return &metadata.MetaFiles{
		Version: version, Length: int64(len(data)),
		Hashes: metadata.Hashes{"sha256": sum[:]},
	}
}

// seal signs the snapshot and, over it, the timestamp.
func seal(p pen, root *metadata.RootType, snapshot *metadata.Metadata[metadata.SnapshotType],
	timestamp *metadata.Metadata[metadata.TimestampType], out Files) error {
	role := root.Roles[metadata.SNAPSHOT]
	data, err := encode(p, metadata.SNAPSHOT, snapshot, role.KeyIDs, role.Threshold)
	if err != nil {
		return err
	}
	out[trust.MetadataPath(metadata.SNAPSHOT)] = data
	timestamp.Signed.Meta = map[string]*metadata.MetaFiles{
		metadata.SNAPSHOT + ".json": metaOf(snapshot.Signed.Version, data),
	}
	return sealTimestamp(p, root, timestamp, out)
}

func sealTimestamp(p pen, root *metadata.RootType, timestamp *metadata.Metadata[metadata.TimestampType], out Files) error {
	role := root.Roles[metadata.TIMESTAMP]
	data, err := encode(p, metadata.TIMESTAMP, timestamp, role.KeyIDs, role.Threshold)
	if err != nil {
		return err
	}
	out[trust.MetadataPath(metadata.TIMESTAMP)] = data
	return nil
}
