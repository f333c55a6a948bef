package loop

import (
	"context"
	"fmt"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/journal"
	"github.com/gpuaas/node-agent/agent/internal/report"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// failed handles a pass that failed after it began to change the host.
func (l *Loop) failed(ctx context.Context, d desired, e *host.Error, fresh bool) {
	l.unproven = d.name.Digest
	if !fresh {
		// The manifest was good before, so there is nothing better to go back to:
		// say so and try again, ever more slowly.
		l.fail("repair", e)
		l.condition(v1.Healthy, v1.False, e.Reason, e.Error())
		l.damper.repaired(l.Now())
		l.retryAt = l.Now().Add(backoff(l.damper.repairs))
		l.Log.Error("cannot repair", "component", e.Component, "element", e.Element, "reason", e.Reason, "error", e)
		return
	}
	phase := string(l.phase)
	l.hold(d, e)
	l.to(RolledBack)
	l.rollback(ctx, d)
	// What failed first is what an operator must know.
	if l.Journal.State.Hold != nil {
		l.showHold()
		return
	}
	l.fail(phase, e)
	l.condition(v1.Applied, v1.False, e.Reason, e.Error())
	l.to(Held)
}

// hold makes durable that d isn't tried again, before anything is rolled back:
// a crash from here on must not lead to another attempt.
func (l *Loop) hold(d desired, e *host.Error) {
	l.Log.Error("the manifest failed", "generation", d.name.Generation, "component", e.Component,
		"element", e.Element, "reason", e.Reason, "error", e, "retry", e.Retry)
	if e.Retry {
		l.postpone()
		return
	}
	l.Journal.State.Hold = &journal.Hold{Manifest: d.name, Since: l.Now().UTC(), Error: l.statusError(string(l.phase), e)}
	l.Journal.State.Phase = string(Held)
	if err := l.Journal.Save(); err != nil {
		l.Log.Error("cannot save the journal", "error", err)
	}
	l.audit(report.Record{Event: "held", Result: "failed", Resource: e.Element, Error: e.Error()})
}

// rollback reconciles to the last good manifest; without one, to a host without
// anything of ours, which is what it was before.
func (l *Loop) rollback(ctx context.Context, from desired) {
	var good journal.Manifest
	if g := l.Journal.State.LastGood; g != nil {
		good = *g
	}
	to, err := l.load(good)
	if err != nil {
		l.rollbackFailed(good, host.AsError(err))
		return
	}
	l.Log.Warn("rolling back", "from", from.name.Generation, "to", to.name.Generation)
	p, err := l.prepare(ctx, &to)
	if err == nil {
		err = l.apply(ctx, p.Steps)
	}
	if err == nil {
		err = l.probation(ctx, to, p.Steps, false)
	}
	if ctx.Err() != nil {
		return // a stop is no failure; the next start goes on
	}
	if err != nil {
		l.rollbackFailed(good, host.AsError(err))
		return
	}
	l.auditAs(report.Record{Event: "rolled-back", Generation: good.Generation, Manifest: good.Digest, Result: "ok"})
	l.Log.Warn("rolled back", "generation", good.Generation)
	l.reached(to, p.Notices)
}

func (l *Loop) rollbackFailed(to journal.Manifest, e *host.Error) {
	l.unproven = to.Digest
	if l.Journal.State.Hold != nil {
		l.retryAt = l.Now().Add(jitter(backoff(l.damper.repairs)))
		l.damper.repaired(l.Now())
	}
	l.auditAs(report.Record{Event: "rolled-back", Generation: to.Generation, Manifest: to.Digest, Result: "failed", Resource: e.Element, Error: e.Error()})
	l.condition(v1.Healthy, v1.False, e.Reason, fmt.Sprintf("the rollback failed too: %v", e))
	l.Log.Error("the rollback failed too; what still works stays as it is and the next pass tries again",
		"component", e.Component, "element", e.Element, "reason", e.Reason, "error", e)
}

// showHold puts the reason of a hold into status, also after a restart.
func (l *Loop) showHold() {
	h := l.Journal.State.Hold
	l.to(Held)
	e := h.Error
	l.status.LastError = &e
	l.condition(v1.Applied, v1.False, v1.ReasonHeld, fmt.Sprintf(
		"generation %d failed and is held until another manifest comes: %s", h.Generation, e.Message))
}
