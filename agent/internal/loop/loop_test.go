package loop_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/trusttest"
)

const app = "gpuaas-app.service"

func (w *world) want(t *testing.T, condition v1.ConditionType, status v1.ConditionStatus, reason v1.Reason) {
	t.Helper()
	c := report.Condition(w.status, condition)
	if c.Status != status || c.Reason != reason {
		t.Errorf("%s is %s %s (%s), want %s %s", condition, c.Status, c.Reason, c.Message, status, reason)
	}
}

func (w *world) wantText(t *testing.T, text string) {
	t.Helper()
	if got := string(w.files["/etc/gpuaas/app.env"].Content); !strings.Contains(got, text) {
		t.Errorf("the env file is %q, want %q in it", got, text)
	}
}

func TestNewManifestIsReachedAndCommitted(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	s := w.once()
	if s.Phase != "Committed" || s.ObservedGeneration != 2 || s.DesiredGeneration != 2 || w.active[app] != 1 {
		t.Errorf("status %+v, started %d times", s, w.active[app])
	}
	for _, c := range []v1.ConditionType{v1.Verified, v1.Fresh, v1.Staged, v1.Applied, v1.Healthy} {
		w.want(t, c, v1.True, v1.ReasonOK)
	}
	if len(s.Packages) != 1 || len(s.Tasks) != 3 || s.LastError != nil {
		t.Errorf("elements %+v %+v, error %+v", s.Packages, s.Tasks, s.LastError)
	}
	w.applied = nil
	if w.once(); len(w.applied) != 0 {
		t.Errorf("a second pass did %v", w.applied)
	}
	w.publish(3, "two")
	if w.once(); w.active[app] != 2 {
		t.Errorf("a new value started the service %d times, want twice", w.active[app])
	}
	w.wantText(t, "two")
}

func TestFailedProbationGoesBackAndHolds(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "good")
	w.once()
	w.publish(3, "bad")
	w.unhealthy = func([]task.Service) error {
		if strings.Contains(string(w.files["/etc/gpuaas/app.env"].Content), "bad") {
			return &host.Error{Component: "health", Element: "service/" + app, Reason: v1.ReasonUnhealthy, Err: errors.New("it answers 500")}
		}
		return nil
	}
	s := w.once()
	w.wantText(t, "good")
	w.want(t, v1.Applied, v1.False, v1.ReasonHeld)
	if s.Phase != "Held" || s.ObservedGeneration != 2 || s.DesiredGeneration != 3 {
		t.Errorf("status %+v", s)
	}
	if e := s.LastError; e == nil || e.Category != v1.ReasonUnhealthy || e.Element != "service/"+app || e.Phase != "Probation" {
		t.Errorf("last error %+v", s.LastError)
	}
	// Not tried again: not by polls, not after restarts.
	w.applied = nil
	for range 3 {
		w.now = w.now.Add(time.Hour / 2)
		w.once()
		w.restart()
		w.once()
	}
	if len(w.applied) != 0 {
		t.Errorf("a held manifest was tried again: %v", w.applied)
	}
	if e := w.status.LastError; e == nil || e.Category != v1.ReasonUnhealthy {
		t.Errorf("after restarts the reason is gone: %+v", e)
	}
	// Drift of what is enforced instead is repaired all the same.
	w.running[app] = false
	if w.once(); !w.running[app] {
		t.Error("the service of the last good manifest stays down")
	}
	w.publish(4, "better")
	s = w.once()
	w.wantText(t, "better")
	if s.Phase != "Committed" || s.LastError != nil {
		t.Errorf("the next manifest: %+v", s)
	}
}

func TestFailedFirstManifestLeavesTheHostAsItWas(t *testing.T) {
	w := newWorld(t)
	w.unhealthy = func([]task.Service) error {
		return &host.Error{Component: "health", Reason: v1.ReasonUnhealthy, Err: errors.New("no")}
	}
	w.publish(2, "bad")
	s := w.once()
	if len(w.files) != 0 || len(w.units) != 0 || w.running[app] || len(w.packages) != 0 {
		t.Errorf("left behind: files %v units %v running %v packages %v", w.files, w.units, w.running, w.packages)
	}
	if s.Phase != "Held" || s.ObservedGeneration != 0 {
		t.Errorf("status %+v", s)
	}
}

func TestStepThatFailsForNowIsTriedAgainLater(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.publish(3, "two")
	full := &host.Error{Component: "apply", Element: "file//etc/gpuaas/app.env", Reason: v1.ReasonNoSpace, Retry: true, Err: errors.New("no space left")}
	w.applyErr["file//etc/gpuaas/app.env"] = full
	w.once()
	w.wantText(t, "one")
	if w.journal.State.Hold != nil {
		t.Error("a full disk holds a manifest")
	}
	w.want(t, v1.Applied, v1.False, v1.ReasonNoSpace)
	w.applyErr = map[string]error{}
	if w.once(); strings.Contains(string(w.files["/etc/gpuaas/app.env"].Content), "two") {
		t.Error("tried again at once")
	}
	w.now = w.now.Add(time.Minute)
	w.once()
	w.wantText(t, "two")
	w.want(t, v1.Applied, v1.True, v1.ReasonOK)
}

func TestUnreachableRegistryKeepsTheLastGoodEnforced(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.stageErr = &host.Error{Component: "fetch", Element: "registry.example.com/app", Reason: v1.ReasonRegistryUnreachable, Retry: true, Err: errors.New("refused")}
	w.publishManifest(strings.Replace(manifest(3, "two"), "0001\"}", "0002\"}", 1))
	w.running[app] = false
	s := w.once()
	w.wantText(t, "one")
	if !w.running[app] {
		t.Error("drift of the last good manifest isn't repaired meanwhile")
	}
	w.want(t, v1.Staged, v1.False, v1.ReasonRegistryUnreachable)
	if s.LastError == nil || s.LastError.Phase != "stage" || s.ObservedGeneration != 2 {
		t.Errorf("status %+v", s)
	}
	w.stageErr = nil
	w.now = w.now.Add(time.Minute)
	w.once()
	w.wantText(t, "two")
}

func TestRefusedCommitChangesNothingAndIsNotFetchedAgain(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	// Somebody can push but not sign.
	w.repo.Write("targets/"+targetPath(), []byte(manifest(3, "evil")))
	w.push()
	s := w.once()
	w.wantText(t, "one")
	w.want(t, v1.Verified, v1.False, v1.ReasonMixAndMatch)
	w.want(t, v1.Applied, v1.True, v1.ReasonOK)
	if s.LastError == nil || s.LastError.Component != "trust" || s.DesiredGeneration != 2 {
		t.Errorf("status %+v", s)
	}
	if w.once(); w.polls[len(w.polls)-1] != w.commit {
		t.Errorf("the refused commit is fetched at each poll: %v", w.polls)
	}
	w.publish(4, "two")
	s = w.once()
	w.wantText(t, "two")
	if s.LastError != nil {
		t.Errorf("still complaining: %+v", s.LastError)
	}
}

func TestGuardRefusalLeavesTheHostAsItWas(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.applied = nil
	w.publish(3, "two", "  - {id: shadow, type: runtime.write_config_file, with: {path: /etc/shadow, content: x}}\n")
	s := w.once()
	w.wantText(t, "one")
	if len(w.applied) != 0 {
		t.Errorf("did %v", w.applied)
	}
	w.want(t, v1.Applied, v1.False, v1.ReasonGuard)
	if s.LastError == nil || s.LastError.Component != "guard" || !strings.Contains(s.LastError.Message, "/etc/shadow") {
		t.Errorf("last error %+v", s.LastError)
	}
}

func TestForeignFileIsAConflictUntilItIsGone(t *testing.T) {
	w := newWorld(t)
	w.files["/etc/gpuaas/app.env"] = task.File{Path: "/etc/gpuaas/app.env", Content: []byte("mine"), Mode: 0o600}
	w.publish(2, "one")
	w.once()
	w.wantText(t, "mine")
	w.want(t, v1.Applied, v1.False, v1.ReasonConflict)
	delete(w.files, "/etc/gpuaas/app.env")
	w.now = w.now.Add(time.Minute)
	w.once()
	w.wantText(t, "one")
	w.want(t, v1.Applied, v1.True, v1.ReasonOK)
}

func TestDriftIsRepairedAndCounted(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	f := w.files["/etc/gpuaas/app.env"]
	f.Content = []byte("by hand")
	w.files["/etc/gpuaas/app.env"] = f
	s := w.once()
	w.wantText(t, "one")
	if s.Repairs != 1 || w.active[app] != 1 {
		t.Errorf("%d repairs, started %d times; the service never read the edit", s.Repairs, w.active[app])
	}
}

// A crash at half of an apply: the next start goes on where the host is.
func TestCrashInTheMiddleIsFinishedAfterTheRestart(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.kill = true
	func() {
		defer func() { w.kill = false }()
		ctx, cancel := contextThatEnds(t)
		w.applyErr["unit/"+app] = errKilled
		cancel()
		w.loop.Once(ctx)
	}()
	w.applyErr = map[string]error{}
	w.restart()
	probed := 0
	w.unhealthy = func(s []task.Service) error { probed += len(s); return nil }
	s := w.once()
	if s.Phase != "Committed" || w.active[app] != 1 || probed != 1 {
		t.Errorf("phase %s, started %d times, %d services watched", s.Phase, w.active[app], probed)
	}
}

func TestSourceDownAtStartEnforcesWhatWasVerified(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.running[app] = false
	w.down = &host.Error{Component: "source", Reason: v1.ReasonSourceUnreachable, Retry: true, Err: errors.New("no route")}
	w.restart()
	s := w.once()
	if !w.running[app] {
		t.Error("the service stays down because git is")
	}
	w.want(t, v1.Fresh, v1.True, v1.ReasonOK) // within the limit
	if s.LastError == nil || s.LastError.Category != v1.ReasonSourceUnreachable {
		t.Errorf("last error %+v", s.LastError)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.once()
	w.want(t, v1.Fresh, v1.False, v1.ReasonSourceUnreachable)
	w.down = nil
	s = w.once()
	w.want(t, v1.Fresh, v1.True, v1.ReasonOK)
	if s.LastError != nil {
		t.Errorf("still complaining: %+v", s.LastError)
	}
}

func TestExpiredMetadataIsSaidLoudlyAndEnforcedOn(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.now = w.now.Add(trusttest.TimestampLife + time.Hour)
	w.running[app] = false
	w.once()
	w.want(t, v1.Fresh, v1.False, v1.ReasonExpired)
	if !w.running[app] {
		t.Error("the last verified state isn't enforced any more")
	}
}

func TestCorruptTrustStateIsSetAside(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	if err := w.journal.SaveTrust([]byte("{")); err != nil {
		t.Fatal(err)
	}
	w.restart()
	s := w.once()
	if s.Phase != "Committed" || s.LastError != nil {
		t.Errorf("status %+v", s)
	}
	w.want(t, v1.Verified, v1.True, v1.ReasonOK)
}

func TestRemovedManifestEntriesArePruned(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	head, _, _ := strings.Cut(manifest(3, ""), "packages:")
	w.applied = nil
	w.publishManifest(head)
	w.once()
	if len(w.files) != 0 || len(w.units) != 0 || w.running[app] {
		t.Errorf("left behind: %v %v", w.files, w.units)
	}
	stop, unit := slices.Index(w.applied, "stop service/"+app), slices.Index(w.applied, "remove-unit unit/"+app)
	if stop < 0 || unit < stop {
		t.Errorf("order is %v", w.applied)
	}
}
