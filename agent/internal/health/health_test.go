package health_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/health"
	"github.com/gpuaas/node-agent/agent/internal/host"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// script is a manager and its services that do something at given times.
type script struct {
	began time.Time
	units func(at time.Duration, unit string) host.UnitState
	err   func(at time.Duration) error
	http  func(at time.Duration) error
	tcp   func(at time.Duration) error
	asked int
}

func (s *script) at() time.Duration { return time.Since(s.began) }

func (s *script) Units(_ context.Context, names []string) (map[string]host.UnitState, error) {
	if s.err != nil {
		if err := s.err(s.at()); err != nil {
			return nil, err
		}
	}
	states := map[string]host.UnitState{}
	for _, n := range names {
		states[n] = s.units(s.at(), n)
	}
	return states, nil
}

func (s *script) HTTP(context.Context, string) error { s.asked++; return s.http(s.at()) }
func (s *script) TCP(context.Context, string) error  { s.asked++; return s.tcp(s.at()) }

func up(invocation string) host.UnitState {
	return host.UnitState{LoadState: "loaded", ActiveState: "active", SubState: "running", InvocationID: invocation, ServiceType: "simple"}
}

func always(u host.UnitState) func(time.Duration, string) host.UnitState {
	return func(time.Duration, string) host.UnitState { return u }
}

func state(active, sub string) host.UnitState {
	return host.UnitState{LoadState: "loaded", ActiveState: active, SubState: sub, ServiceType: "simple"}
}

func web() *task.Health {
	return &task.Health{StableFor: 5 * time.Second, Timeout: time.Minute, HTTPURL: "http://127.0.0.1:1/", TCPAddress: "127.0.0.1:1"}
}

func plain() *task.Health { return &task.Health{StableFor: 5 * time.Second, Timeout: time.Minute} }

func TestProbation(t *testing.T) {
	fine := func(time.Duration) error { return nil }
	for _, test := range []struct {
		name   string
		health *task.Health
		state  task.State
		unit   string
		script script
		// after is when the answer must come, and fails its words; "" for healthy.
		after time.Duration
		fails string
	}{
		{name: "up and stays", health: plain(), script: script{units: always(up("1"))}, after: 5 * time.Second},
		{name: "no health asked for", script: script{units: always(up("1"))}, after: health.DefaultStableFor},
		{name: "nothing but to be up", health: &task.Health{Timeout: time.Minute}, script: script{units: always(up("1"))}},
		{name: "slow to come up", health: plain(), script: script{units: func(at time.Duration, _ string) host.UnitState {
			if at < 20*time.Second {
				return state("activating", "start")
			}
			return up("1")
		}}, after: 25 * time.Second},
		{name: "never comes up", health: plain(), script: script{units: always(state("activating", "start"))},
			after: time.Minute, fails: "not healthy for 5s without a break in time: it is activating (start)"},
		{name: "fails", health: plain(), script: script{units: func(at time.Duration, _ string) host.UnitState {
			if at < 3*time.Second {
				return up("1")
			}
			u := state("failed", "failed")
			u.Result = "exit-code"
			return u
		}}, after: 3 * time.Second, fails: "will not become healthy: it is failed (failed), result exit-code"},
		{name: "crash loop", health: plain(), script: script{units: func(at time.Duration, _ string) host.UnitState {
			u := up(at.Truncate(3 * time.Second).String())
			u.Restarts = uint32(at / (3 * time.Second))
			return u
		}}, after: time.Minute, fails: "started anew"},
		{name: "one crash, then good", health: plain(), script: script{units: func(at time.Duration, _ string) host.UnitState {
			if at < 3*time.Second {
				return up("1")
			}
			return up("2")
		}}, after: 8 * time.Second},
		{name: "ends by itself", health: plain(), script: script{units: always(state("inactive", "dead"))},
			after: time.Minute, fails: "it is inactive (dead)"},
		{name: "not loaded", health: plain(), script: script{units: always(host.UnitState{LoadState: "not-found", ActiveState: "inactive"})},
			fails: "systemd says not-found"},
		{name: "answers", health: web(), script: script{units: always(up("1")), http: fine, tcp: fine}, after: 5 * time.Second},
		{name: "answers late", health: web(), script: script{units: always(up("1")), tcp: fine, http: func(at time.Duration) error {
			if at < 10*time.Second {
				return errors.New("refused")
			}
			return nil
		}}, after: 15 * time.Second},
		{name: "stops answering", health: web(), script: script{units: always(up("1")), http: fine, tcp: func(at time.Duration) error {
			if at > 2*time.Second {
				return errors.New("connect to 127.0.0.1:1: refused")
			}
			return nil
		}}, after: time.Minute, fails: "connect to 127.0.0.1:1: refused"},
		{name: "answers wrongly at the last moment", health: web(), script: script{units: always(up("1")), tcp: fine, http: func(at time.Duration) error {
			if at > 4900*time.Millisecond {
				return errors.New("500")
			}
			return nil
		}}, after: time.Minute, fails: "500"},
		{name: "the manager restarts meanwhile", health: plain(), script: script{units: always(up("1")), err: func(at time.Duration) error {
			if at > time.Second && at < 4*time.Second {
				return errors.New("gone")
			}
			return nil
		}}, after: 9 * time.Second},
		{name: "the manager is gone", health: plain(), script: script{err: func(time.Duration) error { return errors.New("gone") }},
			after: time.Minute, fails: "its state is not known: gone"},
		{name: "timer that waits", unit: "gpuaas-x.timer", health: plain(), script: script{units: always(state("active", "waiting"))}, after: 5 * time.Second},
		{name: "oneshot that ended well", health: plain(), script: script{units: always(
			host.UnitState{LoadState: "loaded", ActiveState: "inactive", SubState: "dead", ServiceType: "oneshot", Result: "success"})}, after: 5 * time.Second},
		{name: "oneshot that runs", health: plain(), script: script{units: func(at time.Duration, _ string) host.UnitState {
			u := state("activating", "start")
			u.ServiceType, u.Result = "oneshot", "success"
			if at > 10*time.Second {
				u.ActiveState, u.SubState = "inactive", "dead"
			}
			return u
		}}, after: 15100 * time.Millisecond},
		{name: "wanted stopped", state: task.Stopped, health: plain(), script: script{units: always(state("inactive", "dead"))}, after: 5 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := test.script
				s.began = time.Now()
				svc := task.Service{Unit: "gpuaas-x.service", State: task.Running, Health: test.health}
				if test.unit != "" {
					svc.Unit = test.unit
				}
				if test.state != "" {
					svc.State = test.state
				}
				err := (&health.Prober{Units: &s, Checks: &s}).Probe(t.Context(), []task.Service{svc})
				if took := s.at(); took != test.after {
					t.Errorf("answered after %s, want %s", took, test.after)
				}
				if test.fails == "" {
					if err != nil {
						t.Errorf("got %v", err)
					}
					return
				}
				e := host.AsError(err)
				if err == nil || e.Reason != v1.ReasonUnhealthy || e.Component != "health" || e.Element != svc.Ref() || !strings.Contains(err.Error(), test.fails) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// The first that can't become good ends the probation of all.
func TestSeveralServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now(), units: func(at time.Duration, unit string) host.UnitState {
			if unit == "b.service" && at >= 7*time.Second {
				return state("failed", "failed")
			}
			return up("1")
		}}
		long := &task.Health{StableFor: 20 * time.Second, Timeout: time.Minute}
		services := []task.Service{{Unit: "a.service", Health: plain()}, {Unit: "b.service", Health: long}, {Unit: "c.service", Health: long}}
		err := (&health.Prober{Units: s}).Probe(t.Context(), services)
		if host.AsError(err).Element != "service/b.service" || s.at() != 7*time.Second {
			t.Errorf("got %v after %s", err, s.at())
		}
	})
}

// Checks are not asked more often than needed, and a one-shot not at all.
func TestChecksAreRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{began: time.Now(), units: always(up("1")), http: func(time.Duration) error { return nil }}
		h := &task.Health{StableFor: 10 * time.Second, Timeout: time.Minute, HTTPURL: "http://x/"}
		services := []task.Service{{Unit: "a.service", Health: h}, {Unit: "b.service", Action: task.Restart, Source: "now"}}
		if err := (&health.Prober{Units: s, Checks: s}).Probe(t.Context(), services); err != nil || s.asked != 11 {
			t.Errorf("asked %d times, %v", s.asked, err)
		}
	})
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		s := &script{began: time.Now(), units: always(state("activating", "start"))}
		err := (&health.Prober{Units: s}).Probe(ctx, []task.Service{{Unit: "a.service", Health: plain()}})
		if !errors.Is(err, context.DeadlineExceeded) || s.at() != 3*time.Second {
			t.Errorf("got %v after %s", err, s.at())
		}
	})
}
