package trust

import (
	"github.com/theupdateframework/go-tuf/v2/metadata"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// roleFile is the verified metadata of a delegated role.
type roleFile struct {
	Name    string `json:"name"`
	Version int64  `json:"version"`
	Data    []byte `json:"data"`
}

// lookup finds who signed what for a target path: the specification's pre-order
// walk, cut to the two levels that the signed branch has.
func (c *chain) lookup(path string) (*metadata.TargetFiles, []roleFile, error) {
	targets := c.tuf.Targets[metadata.TARGETS].Signed
	var visited []roleFile
	if targets.Delegations == nil {
		return nil, nil, notDelegated(path)
	}
	for _, d := range targets.Delegations.Roles {
		if ok, err := d.IsDelegatedPath(path); err != nil || !ok {
			continue
		}
		if len(visited) >= maxDelegators {
			return nil, nil, fail(v1.ReasonMalformed, metadata.TARGETS, "more than %d roles may sign %s", maxDelegators, path)
		}
		found, files, err := c.lookupTeam(d, path)
		visited = append(visited, files...)
		if found != nil || err != nil {
			return found, visited, err
		}
		if d.Terminating {
			break
		}
	}
	if len(visited) == 0 {
		return nil, nil, notDelegated(path)
	}
	return nil, nil, fail(v1.ReasonNoManifest, manifestRole, "no role signed a manifest at %s", path)
}

func notDelegated(path string) error {
	return fail(v1.ReasonNotDelegated, metadata.TARGETS, "it lets no role sign %s", path)
}

// lookupTeam looks in a team's own list and then in the one bin that the path hashes to.
func (c *chain) lookupTeam(d metadata.DelegatedRole, path string) (*metadata.TargetFiles, []roleFile, error) {
	team, file, err := c.loadTeam(d)
	if err != nil {
		return nil, nil, err
	}
	visited := []roleFile{file}
	if found := team.Targets[path]; found != nil {
		return found, visited, nil
	}
	if team.Delegations == nil || team.Delegations.SuccinctRoles == nil {
		return nil, visited, nil
	}
	bin, file, err := c.loadBin(d.Name, BinOf(d.Name, path))
	if err != nil {
		return nil, nil, err
	}
	return bin.Targets[path], append(visited, file), nil
}

func (c *chain) loadTeam(d metadata.DelegatedRole) (*metadata.TargetsType, roleFile, error) {
	keys := c.tuf.Targets[metadata.TARGETS].Signed.Delegations.Keys
	if err := vetKeys(metadata.TARGETS, d.Name, d.KeyIDs, d.Threshold, keys); err != nil {
		return nil, roleFile{}, err
	}
	data, team, err := c.load(d.Name, metadata.TARGETS, MaxRole, c.floor.Roles[d.Name])
	if err != nil {
		return nil, roleFile{}, err
	}
	return team, roleFile{d.Name, team.Version, data}, vetTeam(d.Name, team)
}

func (c *chain) loadBin(team, bin string) (*metadata.TargetsType, roleFile, error) {
	data, signed, err := c.load(bin, team, MaxRole, c.floor.Roles[bin])
	if err != nil {
		return nil, roleFile{}, err
	}
	return signed, roleFile{bin, signed.Version, data}, vetBin(bin, signed)
}

// manifest reads the blob of a target, checks it against what was signed, and
// decodes it.
func (c *chain) manifest(path string, signed *metadata.TargetFiles) ([]byte, v1.NodeManifest, error) {
	var none v1.NodeManifest
	data, err := read(c.files, manifestRole, TargetsDir+path, MaxManifest)
	if err != nil {
		return nil, none, err
	}
	err = guarded(manifestRole, v1.ReasonMalformed, func() error { return signed.VerifyLengthHashes(data) })
	if err != nil {
		return nil, none, err
	}
	var m v1.NodeManifest
	err = guarded(manifestRole, v1.ReasonMalformed, func() (err error) {
		m, err = v1.DecodeManifest(TargetsDir+path, data)
		return err
	})
	return data, m, err
}
