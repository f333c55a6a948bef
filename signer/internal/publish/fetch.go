package publish

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// Fetch gets a remote's branch and returns its commit, "" where the remote has
// no such branch. remote is a name or a URL. In a shallow repository the
// branch comes without its history.
func (r *Repository) Fetch(ctx context.Context, remote, branch string) (string, error) {
	e, err := r.endpoint(remote)
	if err != nil {
		return "", err
	}
	tip, auth, err := r.remoteTip(ctx, e, branch)
	if err != nil || tip.IsZero() {
		return "", err
	}
	tracking := plumbing.NewRemoteReferenceName(remote, branch)
	if _, err := r.git.Remote(remote); err != nil {
		tracking = plumbing.ReferenceName("refs/gpuaas/fetched/" + branch)
	}
	if r.complete(tip) != nil {
		if err := r.fetchBranch(ctx, e, auth, branch, tracking); err != nil {
			return "", err
		}
		// A fetch may end well and not have brought the commit, after a forced push.
		if err := r.complete(tip); err != nil {
			return "", explain(e, "fetch from", fmt.Errorf("commit %s didn't come: %w; try git fetch --refetch", tip, err))
		}
	}
	if err := r.git.Storer.SetReference(plumbing.NewHashReference(tracking, tip)); err != nil {
		return "", fmt.Errorf("cannot note where %s is: %w", tracking, err)
	}
	return tip.String(), nil
}

// remoteTip asks where a remote's branch is; zero for nowhere.
func (r *Repository) remoteTip(ctx context.Context, e *target, branch string) (_ plumbing.Hash, _ transport.AuthMethod, err error) {
	t, auth, err := r.connect(ctx, e)
	if err != nil {
		return plumbing.ZeroHash, nil, err
	}
	session, err := t.NewUploadPackSession(e.Endpoint, auth)
	if err != nil {
		return plumbing.ZeroHash, nil, explain(e, "reach", err)
	}
	defer func() { _ = session.Close() }()
	refs, err := session.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) {
		return plumbing.ZeroHash, auth, nil
	}
	if err != nil {
		return plumbing.ZeroHash, nil, explain(e, "reach", err)
	}
	return refs.References[plumbing.NewBranchReferenceName(branch).String()], auth, nil
}

func (r *Repository) fetchBranch(ctx context.Context, e *target, auth transport.AuthMethod, branch string, tracking plumbing.ReferenceName) error {
	shallow, err := r.git.Storer.Shallow()
	if err != nil {
		return fmt.Errorf("cannot tell whether the repository is shallow: %w", err)
	}
	options := &git.FetchOptions{
		RefSpecs: []config.RefSpec{config.RefSpec(fmt.Sprintf("+refs/heads/%s:%s", branch, tracking))},
		Auth:     auth, Tags: git.NoTags, Force: true,
	}
	if len(shallow) > 0 {
		options.Depth = 1
	}
	source := git.NewRemote(r.git.Storer, &config.RemoteConfig{Name: "source", URLs: []string{e.String()}})
	err = source.FetchContext(ctx, options)
	if err != nil && !errors.Is(err, git.NoErrAlreadyUpToDate) {
		return explain(e, "fetch from", err)
	}
	return nil
}

// complete looks whether a commit and its root are here.
func (r *Repository) complete(hash plumbing.Hash) error {
	c, err := r.git.CommitObject(hash)
	if err != nil {
		return err
	}
	_, err = c.Tree()
	return err
}
