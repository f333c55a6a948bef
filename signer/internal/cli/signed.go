package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gpuaas/node-agent/schema/trust"
	"github.com/gpuaas/node-agent/signer/internal/publish"
)

// defaultRemote is where the signed branch is, as git clone names it.
const defaultRemote = "origin"

// published returns the newest commit of the signed branch that is known here,
// "" if there is none: the local branch's or the remote-tracking one's.
func published(git *publish.Repository, branch string) (string, error) {
	local, err := git.Branch(branch)
	if err != nil {
		return "", err
	}
	remote, err := git.RemoteBranch(defaultRemote, branch)
	if err != nil {
		return "", err
	}
	if local == "" || remote == "" || local == remote {
		return local + strings.TrimPrefix(remote, local), nil
	}
	// Where both are there the higher version is the newer state; neither has to
	// be an ancestor of the other.
	localVersion, err := snapshotVersion(git, local)
	if err != nil {
		return "", err
	}
	remoteVersion, err := snapshotVersion(git, remote)
	if err != nil {
		return "", err
	}
	if localVersion > remoteVersion {
		return local, nil
	}
	return remote, nil
}

// snapshotVersion reads the version of a state, unverified; 0 if there is none.
func snapshotVersion(git *publish.Repository, commit string) (int64, error) {
	tree, err := git.Tree(commit)
	if err != nil {
		return 0, err
	}
	data, ok := tree.ReadFile(trust.MetadataPath("snapshot"))
	if !ok || len(data) > trust.MaxSnapshot {
		return 0, nil
	}
	var snapshot struct {
		Signed struct {
			Version int64 `json:"version"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(data, &snapshot); err != nil {
		return 0, nil // not newer than anything
	}
	return snapshot.Signed.Version, nil
}

// signedManifests returns the manifests of a commit of the signed branch by
// target path, unverified.
func signedManifests(tree *publish.Tree) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := tree.Each(strings.TrimSuffix(trust.TargetsDir, "/"), func(path string, data []byte) error {
		target := strings.TrimPrefix(path, trust.TargetsDir)
		if _, _, err := trust.ParseTargetPath(target); err == nil {
			out[target] = data
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the signed branch: %w", err)
	}
	return out, nil
}

// baseToSign chooses what the next signed state is built upon: what is
// published, or what was signed here on top of that and not yet published. old is the
// local branch's commit, which the new one replaces.
func baseToSign(ctx context.Context, o *options, git *publish.Repository, branch string, offline bool) (base, old string, err error) {
	old, err = git.Branch(branch)
	if err != nil || offline {
		return old, old, err
	}
	if _, err := git.RemoteURL(defaultRemote); err != nil {
		o.say("there is no remote %q: building on the local branch %s", defaultRemote, branch)
		return old, old, nil
	}
	remote, err := git.Fetch(ctx, defaultRemote, branch)
	if err != nil {
		return "", "", fmt.Errorf("%w (--offline builds on the local branch %s instead)", err, branch)
	}
	if remote == "" {
		return old, old, nil
	}
	ahead, err := git.Contains(old, remote)
	if err != nil {
		return "", "", err
	}
	if old != "" && ahead {
		return old, old, nil
	}
	if old != "" {
		behind, err := git.Contains(remote, old)
		if err != nil {
			return "", "", err
		}
		if !behind {
			o.say("somebody else published meanwhile: what was signed here and not published is made anew on top of that")
		}
	}
	return remote, old, nil
}
