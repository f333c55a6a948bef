package loop_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/host"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// runFor runs the loop on synctest's clock while act plays, and stops it.
func (w *world) runFor(act func(wake chan<- struct{})) {
	ctx, cancel := context.WithCancel(context.Background())
	wake := make(chan struct{})
	done := make(chan error)
	go func() { done <- w.loop.Run(ctx, wake) }()
	synctest.Wait()
	act(wake)
	cancel()
	if err := <-done; err != nil {
		w.t.Errorf("Run: %v", err)
	}
}

// clocked makes the world's clock that of synctest, from trusttest's start on.
func clocked(t *testing.T) *world {
	w := newWorld(t)
	start := time.Now()
	base := w.now
	w.clock = func() time.Time { return base.Add(time.Since(start)) }
	return w
}

func TestRunPollsWithJitterAndNothingElseAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one")
		w.runFor(func(chan<- struct{}) {
			var polls, observed int
			w.do(func() { w.applied, polls, observed = nil, len(w.polls), w.observed })
			pass(30 * time.Minute)
			w.do(func() {
				if n := len(w.polls) - polls; n < 26 || n > 34 {
					t.Errorf("%d polls in 30 minutes with an interval of one", n)
				}
				if len(w.applied) != 0 || w.observed != observed {
					t.Errorf("at rest the loop did %v and looked %d times at the host", w.applied, w.observed-observed)
				}
			})
		})
	})
}

func TestRunRepairsOnAnEventWithoutAPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one")
		w.runFor(func(chan<- struct{}) {
			var polls int
			w.do(func() { polls, w.running[app] = len(w.polls), false })
			w.changes <- app
			synctest.Wait()
			w.do(func() {
				if !w.running[app] || len(w.polls) != polls {
					t.Errorf("running %v after an event, %d polls", w.running[app], len(w.polls)-polls)
				}
			})
		})
	})
}

func TestRunPollsAtOnceWhenWoken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one")
		w.runFor(func(wake chan<- struct{}) {
			w.do(func() { w.publish(3, "two") })
			wake <- struct{}{}
			synctest.Wait()
			w.do(func() { w.wantText(t, "two") })
		})
	})
}

// A service that dies again and again is started again, ever more slowly.
func TestRunDampsARepairStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one")
		w.runFor(func(chan<- struct{}) {
			var before int
			w.do(func() { before = w.active[app] })
			for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); pass(100 * time.Millisecond) {
				w.do(func() { w.running[app] = false })
				select {
				case w.changes <- app:
				default:
				}
			}
			w.do(func() {
				if n := w.active[app] - before; n < damperFreeRepairs || n > 25 {
					t.Errorf("a crash loop of ten minutes was repaired %d times", n)
				}
			})
		})
	})
}

const damperFreeRepairs = 5

// A dead source is asked ever more rarely.
func TestRunBacksOffFromADeadSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.publish(2, "one")
		w.runFor(func(chan<- struct{}) {
			var polls int
			w.do(func() {
				w.down = &host.Error{Component: "source", Reason: v1.ReasonSourceUnreachable, Retry: true, Err: errors.New("refused")}
				polls = len(w.polls)
			})
			pass(2 * time.Hour)
			w.do(func() {
				if n := len(w.polls) - polls; n < 8 || n > 25 {
					t.Errorf("%d polls of a dead source in two hours", n)
				}
			})
		})
	})
}

// A failure that may pass is tried again without an event.
func TestRunRetriesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := clocked(t)
		w.stageErr = &host.Error{Component: "fetch", Reason: v1.ReasonRegistryUnreachable, Retry: true, Err: errors.New("refused")}
		w.publish(2, "one")
		w.runFor(func(chan<- struct{}) {
			pass(10 * time.Second)
			w.do(func() { w.stageErr = nil })
			pass(5 * time.Minute)
			w.do(func() {
				w.wantText(t, "one")
				if !w.running[app] {
					t.Error("the service doesn't run")
				}
			})
		})
	})
}

// pass lets time go by, and the loop finish what it then does.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
