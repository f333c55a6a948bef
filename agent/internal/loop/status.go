package loop

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/apply"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/plan"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func newStatus(s Settings) v1.NodeStatus {
	st := v1.NodeStatus{
		TypeMeta: v1.TypeMeta{APIVersion: v1.APIVersion, Kind: v1.KindNodeStatus},
		Node:     s.Node, AgentVersion: s.AgentVersion, Phase: string(Idle),
	}
	for _, t := range []v1.ConditionType{v1.Verified, v1.Fresh, v1.Staged, v1.Applied, v1.Healthy, v1.Drifted} {
		st.Conditions = report.SetCondition(st.Conditions, s.Now(), v1.Condition{Type: t, Status: v1.Unknown, Reason: v1.ReasonPending})
	}
	return st
}

func (l *Loop) condition(t v1.ConditionType, status v1.ConditionStatus, reason v1.Reason, message string) {
	l.status.Conditions = report.SetCondition(l.status.Conditions, l.Now(),
		v1.Condition{Type: t, Status: status, Reason: reason, Message: clip(message)})
}

// maxMessage bounds what a message says: parts of it may be a stranger's words.
const maxMessage = 4 << 10

func clip(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage], "") + " ..."
}

// fail records the last error.
func (l *Loop) fail(phase string, e *host.Error) {
	s := l.statusError(phase, e)
	l.status.LastError = &s
}

func (l *Loop) statusError(phase string, e *host.Error) v1.StatusError {
	return v1.StatusError{Phase: phase, Component: e.Component, Element: e.Element,
		Category: e.Reason, Message: clip(e.Err.Error()), Time: l.Now().UTC().Truncate(time.Second)}
}

func (l *Loop) lastErrorIn(component string) bool {
	return l.status.LastError != nil && l.status.LastError.Component == component
}

// heartbeat is how old the status document may get while nothing changes: a
// reader can tell from its age whether the agent lives.
const heartbeat = time.Minute

// publish completes the status document and makes it visible, if it says
// anything new or has to show that the agent lives.
func (l *Loop) publish() {
	l.freshness()
	l.status.Phase = string(l.phase)
	now := l.Now().UTC().Truncate(time.Second)
	l.status.Updated = l.written.Updated
	if now.Sub(l.written.Updated) < heartbeat && reflect.DeepEqual(l.status, l.written) {
		return
	}
	l.status.Updated = now
	// Others keep what they are given, and conditions are changed in place.
	published := l.status
	published.Conditions = slices.Clone(l.status.Conditions)
	if err := l.Publish(published); err != nil {
		l.Log.Error("cannot write the status document", "error", err)
		return
	}
	l.written = published
}

// freshness judges age: of the metadata, and of the last answer of the source.
func (l *Loop) freshness() {
	now := l.Now()
	last := l.Journal.State.LastContact
	switch {
	case l.verified == nil:
		if l.pollFailures > 0 {
			reason := v1.ReasonSourceUnreachable
			if l.lastErrorIn("source") {
				reason = l.status.LastError.Category
			}
			l.condition(v1.Fresh, v1.False, reason, "nothing was ever fetched from the signed branch")
		} else {
			l.condition(v1.Fresh, v1.Unknown, v1.ReasonPending, "")
		}
	case l.expired(now):
	case !last.IsZero() && now.Sub(last) > l.StaleAfter:
		l.condition(v1.Fresh, v1.False, v1.ReasonSourceUnreachable, fmt.Sprintf(
			"the source last answered %s ago; the limit is %s", now.Sub(last).Round(time.Second), l.StaleAfter))
	default:
		l.condition(v1.Fresh, v1.True, v1.ReasonOK, "")
	}
}

func (l *Loop) expired(now time.Time) bool {
	role, when, expired := l.verified.ExpiredAt(now)
	if expired {
		l.condition(v1.Fresh, v1.False, v1.ReasonExpired, fmt.Sprintf(
			"%s metadata expired at %s: nothing new is taken; have the signer re-sign it", role, when.UTC().Format(time.RFC3339)))
	}
	return expired
}

// reached says that the host is as d wants it, but for what is left alone.
func (l *Loop) reached(d desired, notices []plan.Notice) {
	l.status.ObservedGeneration = d.name.Generation
	l.elements(d)
	l.watch(d)
	if l.isTarget(d) {
		l.condition(v1.Staged, v1.True, v1.ReasonOK, "")
		l.condition(v1.Applied, v1.True, v1.ReasonOK, "")
		if e := l.status.LastError; e != nil && e.Component != "source" && e.Component != "trust" {
			l.status.LastError = nil
		}
		l.Journal.State.Attempts, l.refusal = 0, ""
		l.to(Committed)
	}
	if d.isNothing() {
		l.condition(v1.Healthy, v1.Unknown, v1.ReasonPending, "nothing of a manifest is on this host")
	} else {
		l.condition(v1.Healthy, v1.True, v1.ReasonOK, "")
	}
	l.condition(v1.Drifted, v1.False, v1.ReasonOK, l.leftAlone(notices))
}

// leftAlone tells what differs and isn't ours to change. It is logged when it changes.
func (l *Loop) leftAlone(notices []plan.Notice) string {
	var lines []string
	for _, n := range notices {
		lines = append(lines, n.Ref+": "+n.Message)
	}
	text := strings.Join(lines, "; ")
	if text != "" && text != report.Condition(l.status, v1.Drifted).Message {
		l.Log.Warn("left alone", "notice", text)
	}
	return text
}

// noteDrift counts and reports what is about to be repaired.
func (l *Loop) noteDrift(steps []host.Step) {
	for _, s := range steps {
		if s.Action == host.StagePackage || s.Action == host.DaemonReload {
			continue
		}
		l.status.Repairs++
		l.condition(v1.Drifted, v1.True, v1.ReasonDrift, fmt.Sprintf("%s: %s", s.Ref, s.Reason))
	}
	l.damper.repaired(l.Now())
}

// elements lists packages and tasks as they are after a pass that reached d.
func (l *Loop) elements(d desired) {
	l.status.Packages, l.status.Tasks = nil, nil
	for _, p := range d.manifest.Packages {
		l.status.Packages = append(l.status.Packages, v1.ElementStatus{Name: p.Name, State: v1.ElementCurrent, Digest: p.Digest})
	}
	for _, t := range d.manifest.Tasks {
		l.status.Tasks = append(l.status.Tasks, v1.ElementStatus{Name: t.ID, Type: t.Type, State: v1.ElementCurrent})
	}
}

// watch has the host watched for changes to what d made.
func (l *Loop) watch(d desired) {
	files, units, packages := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range d.resources {
		switch r := r.(type) {
		case task.File:
			files[r.Path] = true
		case task.Unit:
			units[r.Name] = true
		case task.Service:
			units[r.Unit] = true
		case task.Package:
			packages[r.Name] = true
		}
	}
	l.Watcher.Watch(sorted(files), sorted(units), sorted(packages))
}

func sorted(set map[string]bool) []string { return slices.Sorted(maps.Keys(set)) }

// audit appends a record about the target.
func (l *Loop) audit(r report.Record) {
	if t := l.Journal.State.Target; t != nil {
		r.Generation, r.Manifest = t.Generation, t.Digest
	}
	l.auditAs(r)
}

// auditAs appends a record about the manifest that it names, if any.
func (l *Loop) auditAs(r report.Record) {
	r.Time = l.Now()
	if r.Commit == "" {
		r.Commit = l.Journal.State.Commit
	}
	if l.verified != nil && l.verified.Digest() == r.Manifest {
		r.SignedBy = l.verified.Trust().KeyIDs[l.Team]
	}
	r.Error = clip(r.Error)
	if err := l.Audit.Append(r); err != nil {
		l.Log.Error("cannot write the audit log", "error", err)
	}
}

// refused records a refusal. One that repeats, at each try, is recorded once.
func (l *Loop) refused(r report.Record) {
	key := strings.Join([]string{r.Commit, r.Manifest, r.Resource, r.Error}, "\x00")
	if key == l.refusal {
		return
	}
	l.refusal = key
	r.Event, r.Result = "refused", "failed"
	l.auditAs(r)
}

func (l *Loop) auditStep(s apply.Record) {
	r := report.Record{Event: "step", Action: s.Step.Action.String(), Resource: s.Step.Ref, Task: s.Step.Task,
		Reason: s.Step.Reason, Before: s.Before, After: s.After, Result: "ok",
		Generation: l.working.Generation, Manifest: l.working.Digest}
	if s.Err != nil {
		r.Result, r.Error = "failed", s.Err.Error()
	}
	l.auditAs(r)
}
