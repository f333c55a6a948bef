package loop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/agent/internal/source"
	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// restoreTrust loads the stored trust state and verifies it again from the
// bootstrap root.
func (l *Loop) restoreTrust() error {
	data, err := l.Journal.Trust()
	if err != nil {
		return fmt.Errorf("cannot read the trust state: %w", err)
	}
	if data == nil {
		return nil
	}
	if l.stored, err = trust.DecodeState(data); err == nil {
		err = l.restoreVerified()
	}
	switch trust.ReasonOf(err) {
	case v1.ReasonNoManifest:
		return nil // roots were kept, but nothing was ever verified to the end
	case v1.ReasonUnknownVersion:
		return &host.Error{Component: "trust", Reason: v1.ReasonUnknownVersion, Err: err}
	case v1.ReasonBootstrapRoot:
		// The stored state may be fine; it is the root that is missing.
		l.fail("trust", &host.Error{Component: "trust", Reason: v1.ReasonBootstrapRoot, Err: err})
		return nil
	}
	if err == nil {
		return nil
	}
	name, moveErr := l.Journal.SetAsideTrust()
	if moveErr != nil {
		return fmt.Errorf("cannot set corrupt trust state aside: %w", moveErr)
	}
	l.Log.Error("trust state was corrupt and is set aside; trusting from the bootstrap root again", "file", name, "error", err)
	l.stored = trust.State{}
	return nil
}

func (l *Loop) restoreVerified() error {
	root, err := l.BootstrapRoot()
	if err != nil {
		return bootstrapError(err)
	}
	v, err := trust.Restore(root, l.stored, l.Team, l.Node, l.Now())
	if err != nil {
		return err
	}
	l.verified = &v
	if t := l.Journal.State.Target; t != nil && t.Digest == v.Digest() {
		// Nothing was lost between trust state and journal: this commit is judged.
		l.seen = l.Journal.State.Commit
	}
	l.noteVerified()
	return nil
}

func bootstrapError(err error) error {
	return &trust.Error{Reason: v1.ReasonBootstrapRoot, Role: "root",
		Err: fmt.Errorf("cannot read this node's bootstrap root: %w (it comes with the bootstrap package, or from trust/root.json of the fleet repo)", err)}
}

// poll asks the source and verifies what is new. It reports whether the target changed.
func (l *Loop) poll(ctx context.Context) (moved bool) {
	l.Notifier.Working()
	ctx, cancel := context.WithTimeout(ctx, l.PollTimeout)
	defer cancel()
	snap, err := l.Source.Poll(ctx, l.seen)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.sourceFailed(err)
		}
		return false
	}
	l.pollFailures = 0
	l.contacted()
	if snap == nil {
		return false
	}
	l.seen, l.worked = snap.Commit, true
	return l.judge(snap)
}

// contacted notes that the source answered. It becomes durable now and then:
// losing some minutes of it is harmless, writing at each poll isn't, and without
// any a restart would call a node stale for the time since its last manifest.
func (l *Loop) contacted() {
	now := l.Now().UTC()
	l.Journal.State.LastContact = now
	if now.Sub(l.contactSaved) >= l.StaleAfter/4 {
		l.contactSaved = now
		if err := l.Journal.Save(); err != nil {
			l.Log.Error("cannot save the journal", "error", err)
		}
	}
	if l.lastErrorIn("source") {
		l.status.LastError = nil
		if h := l.Journal.State.Hold; h != nil {
			e := h.Error
			l.status.LastError = &e // that of the source hid it
		}
	}
}

func (l *Loop) sourceFailed(err error) {
	l.pollFailures++
	e := host.AsError(err)
	l.fail("poll", e)
	l.Log.Warn("cannot poll", "reason", e.Reason, "error", err, "failures", l.pollFailures)
}

// judge verifies a snapshot. The new floor is durable before anything acts on it.
func (l *Loop) judge(snap *source.Snapshot) (moved bool) {
	root, err := l.BootstrapRoot()
	if err != nil {
		l.refuse(snap.Commit, bootstrapError(err))
		return false
	}
	verified, state, err := trust.Verify(trust.Input{
		BootstrapRoot: root, Stored: l.stored, Repository: snap,
		Now: l.Now(), BuildTime: l.BuildTime, Team: l.Team, Node: l.Node,
	})
	if saveErr := l.saveTrust(state); saveErr != nil {
		l.seen = "" // judge it again once it can be stored
		l.fail("trust", host.AsError(saveErr))
		return false
	}
	if err != nil {
		l.refuse(snap.Commit, err)
		return false
	}
	l.verified = &verified
	return l.accept(snap.Commit)
}

func (l *Loop) saveTrust(state trust.State) error {
	data, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("cannot encode the trust state: %w", err)
	}
	if err := l.Journal.SaveTrust(data); err != nil {
		return err
	}
	l.stored = state
	return nil
}

func (l *Loop) refuse(commit string, err error) {
	e := new(trust.Error)
	if !errors.As(err, &e) {
		e = &trust.Error{Reason: v1.ReasonInternal, Err: err}
	}
	if e.Reason == v1.ReasonBootstrapRoot {
		e.Err = fmt.Errorf("%w (it is trust/root.json beside the agent's config.yaml: install that of the fleet repo again)", e.Err)
		l.seen = "" // it is this node that lacks something: judge it again once that is there
	}
	l.condition(v1.Verified, v1.False, e.Reason, fmt.Sprintf("commit %s is refused: %v", short(commit), e))
	l.fail("verify", &host.Error{Component: "trust", Element: commit, Reason: e.Reason, Err: e})
	l.refused(report.Record{Commit: commit, Error: e.Error()})
	l.Log.Error("refused a commit of the signed branch; the last verified state stays", "commit", commit, "reason", e.Reason, "role", e.Role, "error", clip(e.Error()))
}

// accept makes a verified manifest the target.
func (l *Loop) accept(commit string) (moved bool) {
	m := l.verified.Manifest()
	name, err := l.Journal.SaveManifest(l.verified.Bytes(), m.Generation)
	if err != nil {
		l.seen = ""
		l.fail("verify", host.AsError(err))
		return false
	}
	s := &l.Journal.State
	s.Commit = commit
	moved = s.Target == nil || *s.Target != name
	if moved {
		s.Target, s.Hold, s.Attempts = &name, nil, 0
		l.retryAt, l.refusal = time.Time{}, ""
	}
	if err := l.Journal.Save(); err != nil {
		l.seen = ""
		l.fail("verify", host.AsError(err))
		return false
	}
	l.noteVerified()
	if moved {
		l.to(Verified)
		l.audit(report.Record{Event: "verified", Result: "ok"})
		l.Log.Info("verified", "commit", commit, "generation", m.Generation, "digest", name.Digest, "fleetCommit", m.Source.Commit)
	}
	return moved
}

// noteVerified fills the parts of status that come from verification.
func (l *Loop) noteVerified() {
	t := l.verified.Trust()
	l.status.Trust = &t
	l.status.SourceCommit = l.Journal.State.Commit
	l.status.DesiredGeneration = l.verified.Manifest().Generation
	l.status.FleetCommit = l.verified.Manifest().Source.Commit
	l.condition(v1.Verified, v1.True, v1.ReasonOK, fmt.Sprintf("commit %s, generation %d", short(l.status.SourceCommit), l.status.DesiredGeneration))
	if e := l.status.LastError; e != nil && (e.Component == "trust" || e.Phase == "trust" || e.Phase == "verify") {
		l.status.LastError = nil
	}
}

func short(commit string) string { return commit[:min(len(commit), 12)] }
