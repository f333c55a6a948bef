package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/gpuaas/node-agent/internal/exitcode"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
	"github.com/gpuaas/node-agent/signer/internal/publish"
)

func newPublish(o *options) *cobra.Command {
	var remote string
	c := &cobra.Command{
		Use:   "publish",
		Short: "Verify the local signed branch and push it",
		Long: `Verify the local branch signed as every node would, and push it. The push replaces
exactly the state that was built upon: when somebody else published meanwhile it
changes nothing and says so. Nodes see the new state at their next poll.

Credentials for HTTPS come from the file that GPUAAS_GIT_TOKEN_FILE names (and
GPUAAS_GIT_USERNAME) or from git's credential helpers; for SSH from the agent or the key
that GPUAAS_GIT_SSH_KEY_FILE names.`,
		RunE: func(c *cobra.Command, _ []string) error { return runPublish(c.Context(), o, remote) },
	}
	c.Flags().StringVar(&remote, "remote", defaultRemote, "name or URL of the remote")
	return c
}

func runPublish(ctx context.Context, o *options, remote string) error {
	dir, err := o.fleetDir()
	if err != nil {
		return err
	}
	branch, err := signedBranch(dir)
	if err != nil {
		return err
	}
	root, err := bootstrapRoot(dir)
	if err != nil {
		return err
	}
	git, err := publish.Open(dir)
	if err != nil {
		return err
	}
	local, err := git.Branch(branch)
	if err != nil {
		return err
	}
	old, err := git.Fetch(ctx, remote, branch)
	if err != nil {
		return err
	}
	if local == "" && old == "" {
		return fmt.Errorf("there is no local branch %s to publish: run gpuaas-signer sign first", branch)
	}
	if local == "" {
		o.say("nothing was signed here: branch %s of %s is at %s", branch, remote, short(old))
		return nil
	}
	if old == local {
		o.say("published already: branch %s of %s is at %s", branch, remote, short(local))
		return nil
	}
	if ahead, err := git.Contains(local, old); err != nil {
		return err
	} else if !ahead {
		return fmt.Errorf("branch %s of %s has commits that are not below what was signed here: run gpuaas-signer sign again", branch, remote)
	}
	summary, err := verifyBranch(o, git, root, local, old)
	if err != nil {
		return verifyError("refused to publish what nodes would refuse", err)
	}
	if err := git.Push(ctx, remote, branch, local, old); err != nil {
		return err
	}
	o.say("published: branch %s of %s is at %s (snapshot %d)", branch, remote, short(local), summary.Snapshot)
	_, err = fmt.Fprintln(o.stdout, local)
	return err
}

// signedBranch reads the branch's name.
func signedBranch(dir string) (string, error) {
	f, err := fleetFile(dir)
	return f.Signed.Branch, err
}

// fleetFile reads fleet.yaml alone: what works on the signed branch only doesn't need
// the rest of the fleet repo to be right.
func fleetFile(dir string) (v1.Fleet, error) {
	data, err := readLimited(dir+"/"+fleet.File, 1<<20)
	if err != nil {
		return v1.Fleet{}, fmt.Errorf("cannot read the fleet repo: %w", err)
	}
	f, err := v1.DecodeFleet(fleet.File, data)
	if err != nil {
		return v1.Fleet{}, err
	}
	return f.WithDefaults(), nil
}

// verifyBranch verifies a commit of the signed branch: every file of it and,
// where there is one before, that it may follow that one.
func verifyBranch(o *options, git *publish.Repository, root []byte, commit, previous string) (trust.Summary, error) {
	tree, err := git.Tree(commit)
	if err != nil {
		return trust.Summary{}, err
	}
	if previous == "" {
		return trust.VerifyAll(root, tree, trust.AllOptions{Now: o.now()})
	}
	before, err := git.Tree(previous)
	if err != nil {
		return trust.Summary{}, err
	}
	// Against the previous state only what was signed anew is read. So every
	// file is held against its hash as well: a commit may have changed one that wasn't.
	if _, err := trust.VerifyAll(root, tree, trust.AllOptions{Now: o.now(), Previous: before}); err != nil {
		return trust.Summary{}, err
	}
	return trust.VerifyAll(root, tree, trust.AllOptions{Now: o.now(), HashesOnly: true})
}

// verifyError gives a failed verification its reason and its exit code.
func verifyError(what string, err error) error {
	var terr *trust.Error
	if !errors.As(err, &terr) {
		return err
	}
	code := exitcode.Failed
	if terr.Reason == v1.ReasonExpired {
		code = exitcode.Stale
	}
	return &exitcode.Error{Code: code, Err: fmt.Errorf("%s: %s: %w", what, terr.Reason, err)}
}
