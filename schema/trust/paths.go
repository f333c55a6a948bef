package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/gpuaas/node-agent/schema/names"
)

// The folders of the signed branch.
const (
	MetadataDir = "metadata/"
	TargetsDir  = "targets/"
)

// BinBits is the number of hash bits that choose a bin: 256 bins a team.
const BinBits = 8

var binName = regexp.MustCompile(`-bin-[0-9a-f]+$`)

// CheckTeam tells whether a name can be a team's: a role name that is none of
// TUF's own and none that a bin could have.
func CheckTeam(name string) error {
	if err := names.Team(name); err != nil {
		return fmt.Errorf("team: %w", err)
	}
	if binName.MatchString(name) {
		return fmt.Errorf("team: found %q; names that end in -bin-<hex> are kept for hash bins", name)
	}
	return nil
}

// CheckNode tells whether a node id can be part of a path.
func CheckNode(id string) error {
	if err := names.NodeID(id); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	return nil
}

// TargetPath is the TUF target path of a node's manifest. In the signed branch
// it lies below TargetsDir.
func TargetPath(team, node string) string {
	sum := sha256.Sum256([]byte(node))
	return fmt.Sprintf("nodes/%s/%s/%s.yaml", team, hex.EncodeToString(sum[:1]), node)
}

// ParseTargetPath is the reverse of TargetPath; it refuses every path that
// TargetPath can't give.
func ParseTargetPath(path string) (team, node string, err error) {
	parts := strings.Split(path, "/")
	if len(parts) == 4 && parts[0] == "nodes" {
		team, node = parts[1], strings.TrimSuffix(parts[3], ".yaml")
		if CheckTeam(team) == nil && CheckNode(node) == nil && path == TargetPath(team, node) {
			return team, node, nil
		}
	}
	return "", "", fmt.Errorf("%q is no manifest's path: nodes/<team>/<hh>/<node>.yaml, where hh are the first two hex digits of the SHA-256 of the node's id", path)
}

// TeamPattern is the one path pattern that a team's delegation has.
func TeamPattern(team string) string { return "nodes/" + team + "/*/*.yaml" }

// BinPrefix is the prefix of a team's bins: their names are "<prefix>-<hex>".
func BinPrefix(team string) string { return team + "-bin" }

// BinOf is the role that holds a target path once its team uses bins.
func BinOf(team, targetPath string) string {
	sum := sha256.Sum256([]byte(targetPath))
	return BinPrefix(team) + "-" + hex.EncodeToString(sum[:BinBits/8])
}

// MetadataPath is where the signed branch keeps a role's metadata.
func MetadataPath(role string) string { return MetadataDir + role + ".json" }

// RootPath is where it keeps one version of the root.
func RootPath(version int64) string {
	return MetadataDir + strconv.FormatInt(version, 10) + ".root.json"
}

// Wanted lists, in order, the files of the signed branch that an agent needs.
// One of them is a glob, "metadata/*.root.json"; some may be absent.
func Wanted(team, node string) []string {
	target := TargetPath(team, node)
	return []string{
		MetadataDir + "*.root.json",
		MetadataPath(metadata.TIMESTAMP),
		MetadataPath(metadata.SNAPSHOT),
		MetadataPath(metadata.TARGETS),
		MetadataPath(team),
		MetadataPath(BinOf(team, target)),
		TargetsDir + target,
	}
}
