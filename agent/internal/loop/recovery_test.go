package loop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func sick([]task.Service) error {
	return &host.Error{Component: "health", Element: "service/" + app, Reason: v1.ReasonUnhealthy, Err: errors.New("it answers 500")}
}

// records returns those of the audit log with that event.
func (w *world) records(event string) (list []report.Record) {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "audit", "audit.jsonl"))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		var r report.Record
		if err := json.Unmarshal(line, &r); err != nil {
			w.t.Fatal(err)
		}
		if r.Event == event {
			list = append(list, r)
		}
	}
	return list
}

// A rollback that fails half way leaves nothing behind for good, also where no
// manifest was ever good.
func TestFailedRollbackIsFinishedLater(t *testing.T) {
	for _, again := range []string{"by the same agent", "after a restart"} {
		w := newWorld(t)
		w.unhealthy = sick
		w.applyErr["file//etc/gpuaas/app.env"] = nil
		w.publish(2, "bad")
		w.unhealthy = func(s []task.Service) error {
			w.applyErr["unit/"+app] = &host.Error{Component: "apply", Reason: v1.ReasonNotWritable, Retry: true, Err: errors.New("read-only")}
			return sick(s)
		}
		w.once()
		if len(w.units) == 0 {
			t.Fatal("the rollback did not fail")
		}
		w.applyErr, w.unhealthy = map[string]error{}, nil
		if again == "after a restart" {
			w.restart()
		}
		s := w.once()
		if len(w.files) != 0 || len(w.units) != 0 || w.running[app] || len(w.packages) != 0 {
			t.Errorf("%s: left behind: files %v units %v running %v packages %v", again, w.files, w.units, w.running, w.packages)
		}
		if s.ObservedGeneration != 0 || s.Phase != "Held" || s.LastError == nil || s.LastError.Category != v1.ReasonUnhealthy {
			t.Errorf("%s: %+v", again, s)
		}
	}
}

// A service that was repaired and not seen healthy since isn't called healthy.
func TestRepairedServiceIsHealthyOnlyOnceItWasSeenSo(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	w.running[app], w.unhealthy = false, sick
	w.once()
	w.want(t, v1.Healthy, v1.False, v1.ReasonUnhealthy)
	for range 3 {
		w.now = w.now.Add(10 * time.Minute)
		w.once() // it runs: there is nothing to be done
		w.want(t, v1.Healthy, v1.False, v1.ReasonUnhealthy)
	}
	w.unhealthy = nil
	w.now = w.now.Add(10 * time.Minute)
	if s := w.once(); s.LastError != nil {
		t.Errorf("still complaining: %+v", s.LastError)
	}
	w.want(t, v1.Healthy, v1.True, v1.ReasonOK)
}

// One repair that fails while a manifest is held must not keep the loop busy ever after.
func TestRunIsAtRestAfterARepairFailedInAHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "good")
		w.once()
		w.publish(3, "bad")
		w.unhealthy = func(s []task.Service) error {
			if strings.Contains(string(w.files["/etc/gpuaas/app.env"].Content), "bad") {
				return sick(s)
			}
			return nil
		}
		w.once()
		w.runFor(func(chan<- struct{}) {
			w.do(func() { w.running[app], w.unhealthy = false, sick })
			w.changes <- app
			synctest.Wait()
			w.do(func() { w.unhealthy = nil })
			pass(2 * time.Minute)
			var before int
			w.do(func() {
				w.want(t, v1.Healthy, v1.True, v1.ReasonOK)
				before = w.observed
			})
			pass(10 * time.Minute)
			w.do(func() {
				if n := w.observed - before; n > 2 {
					t.Errorf("looked %d times at a host that is at rest", n)
				}
			})
		})
	})
}

func TestFetchedPackageBecomesTheAgents(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one", `  - {id: next, type: artifact.fetch, with: {name: next, ref: registry.example.com/next, digest: "sha256:`+strings.Repeat("1", 64)+`"}}
`)
	if s := w.once(); s.LastError != nil {
		t.Fatal(s.LastError)
	}
	if _, owned := w.journal.Inventory.Packages["next"]; !owned || len(w.packages["next"]) != 1 {
		t.Fatalf("inventory %+v, packages %v", w.journal.Inventory.Packages, w.packages)
	}
	w.applied = nil
	steps := len(w.records("step"))
	if w.once(); len(w.applied) != 0 || len(w.records("step")) != steps {
		t.Errorf("a second pass did %v", w.applied)
	}
	w.publish(3, "one")
	if w.once(); len(w.packages["next"]) != 0 {
		t.Errorf("left behind: %v", w.packages)
	}
}

// What the guard refuses is refused again at each look: one record says so.
func TestLastingRefusalIsNotRecordedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one", "  - {id: shadow, type: runtime.write_config_file, with: {path: /etc/shadow, content: x}}\n")
		w.runFor(func(chan<- struct{}) {
			var before int
			w.do(func() { before = w.observed })
			pass(time.Hour)
			w.do(func() {
				if n := w.observed - before; n > 20 {
					t.Errorf("looked %d times", n)
				}
			})
		})
		if list := w.records("refused"); len(list) != 1 || list[0].Generation != 2 {
			t.Errorf("%d records: %+v", len(list), list)
		}
	})
}

func TestCommitIsJudgedAgainOnceTheNodeCan(t *testing.T) {
	w := newWorld(t)
	w.rootErr = errors.New("no such file")
	w.publish(2, "one")
	w.once()
	w.want(t, v1.Verified, v1.False, v1.ReasonBootstrapRoot)
	w.once()
	if n := len(w.records("refused")); n != 1 {
		t.Errorf("%d records of the same refusal", n)
	}
	w.rootErr = nil
	w.once()
	w.want(t, v1.Verified, v1.True, v1.ReasonOK)
	w.wantText(t, "one")
}

func TestLastContactSurvivesARestart(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	for range 300 { // five hours without news
		w.now = w.now.Add(time.Minute)
		w.once()
	}
	w.down = &host.Error{Component: "source", Reason: v1.ReasonSourceUnreachable, Retry: true, Err: errors.New("no route")}
	w.restart()
	w.once()
	w.want(t, v1.Fresh, v1.True, v1.ReasonOK)
}

func TestAuditNamesTheManifestThatIsApplied(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "good")
	w.once()
	w.publish(3, "bad")
	w.unhealthy = func(s []task.Service) error {
		w.unhealthy = nil
		return sick(s)
	}
	w.once()
	var generations []int64
	for _, r := range w.records("step") {
		if r.Action == "restart" {
			generations = append(generations, r.Generation)
			if signed := len(r.SignedBy) > 0; signed != (r.Generation == 3) {
				t.Errorf("generation %d is said to be signed by %v", r.Generation, r.SignedBy)
			}
		}
	}
	if len(generations) != 2 || generations[0] != 3 || generations[1] != 2 {
		t.Errorf("restarts are of generations %v", generations)
	}
}

// Others keep a status document while the loop goes on: metrics, a report that is sent.
func TestPublishedStatusStaysAsItWas(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	first := w.status
	w.running[app], w.unhealthy = false, sick
	w.once()
	if c := report.Condition(first, v1.Healthy); c.Status != v1.True {
		t.Errorf("an earlier document changed: %+v", c)
	}
}

func TestStrangersWordsAreCut(t *testing.T) {
	w := newWorld(t)
	w.down = &host.Error{Component: "source", Reason: v1.ReasonSourceUnreachable, Retry: true, Err: errors.New(strings.Repeat("\u00e4", 1<<20))}
	if s := w.once(); s.LastError == nil || len(s.LastError.Message) > 5000 {
		t.Errorf("a message of %d bytes", len(s.LastError.Message))
	}
}

func TestKeptManifestThatRottedHeals(t *testing.T) {
	w := newWorld(t)
	w.publish(2, "one")
	w.once()
	kept, err := filepath.Glob(filepath.Join(w.dir, "state", "manifests", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if err := os.WriteFile(kept[0], []byte("rot"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.running[app] = false
	if s := w.once(); !w.running[app] || s.LastError != nil {
		t.Errorf("running %v, %+v", w.running[app], s.LastError)
	}
}
