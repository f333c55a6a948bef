package loop

import (
	"context"
	"errors"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Preview is what a reconcile would do now.
type Preview struct {
	// Commit is that of the signed branch; "" when only stored state was used.
	Commit   string
	Verified trust.Verified
	Plan     plan.Plan
	// Hold is set when this manifest failed before and would not be tried.
	Hold *journal.Hold
}

// Check fetches and verifies the signed branch, or with offline verifies what is
// stored, and keeps nothing of it. Errors are host.Errors or trust.Errors.
func (l *Loop) Check(ctx context.Context, offline bool) (verified trust.Verified, commit string, err error) {
	root, err := l.BootstrapRoot()
	if err != nil {
		return trust.Verified{}, "", bootstrapError(err)
	}
	if offline {
		verified, err = trust.Restore(root, l.stored, l.Team, l.Node, l.Now())
		return verified, l.Journal.State.Commit, err
	}
	ctx, cancel := context.WithTimeout(ctx, l.PollTimeout)
	defer cancel()
	snap, err := l.Source.Poll(ctx, "")
	if err != nil {
		return trust.Verified{}, "", err
	}
	if snap == nil {
		return trust.Verified{}, "", &host.Error{Component: "source", Reason: v1.ReasonSourceEmpty, Err: errors.New("the signed branch is empty")}
	}
	verified, _, err = trust.Verify(trust.Input{
		BootstrapRoot: root, Stored: l.stored, Repository: snap,
		Now: l.Now(), BuildTime: l.BuildTime, Team: l.Team, Node: l.Node,
	})
	return verified, snap.Commit, err
}

// Preview plans without doing anything: nothing is fetched but the signed
// branch, and nothing is stored.
func (l *Loop) Preview(ctx context.Context, offline bool) (Preview, error) {
	verified, commit, err := l.Check(ctx, offline)
	if err != nil {
		return Preview{}, err
	}
	p := Preview{Commit: commit, Verified: verified}
	if h := l.Journal.State.Hold; h != nil && h.Digest == verified.Digest() {
		p.Hold = h
	}
	d, err := decode(journal.Manifest{Generation: verified.Manifest().Generation, Digest: verified.Digest()}, verified.Bytes())
	if err != nil {
		return p, err
	}
	p.Plan, err = l.computePlan(ctx, &d)
	return p, err
}
