package integration_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Updates that fail are rolled back and held, also over a restart of the agent;
// the next manifest is taken.
func TestBadUpdateIsRolledBack(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]struct{ value, words string }{
		"health fails":  {"health", "503"},
		"exits at once": {"exit", "exit"},
		"never listens": {"deaf", "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, options{})
			w.startAgent()
			w.install()
			w.edit(profile, "timeout: 10s", "timeout: 3s")
			w.deliver("run the story")
			good, list := w.publishedGeneration(), w.list(w.node.etc, w.node.units)

			w.edit(profile, `FAIL: ""`, "FAIL: "+fail.value)
			w.edit(profile, "VALUE: one", "VALUE: bad")
			w.merge("a bad update")
			w.hangup()
			c := w.conditionIs(v1.Applied, v1.False, v1.ReasonHeld)
			w.says(c.Message, fmt.Sprintf("generation %d", w.publishedGeneration()), fail.words)
			check := func() {
				t.Helper()
				s := w.exits(3)
				if s.ObservedGeneration != good || s.DesiredGeneration != w.publishedGeneration() || s.Phase != "Held" ||
					s.LastError == nil || !strings.Contains(s.LastError.Message, fail.words) {
					t.Errorf("status: %+v, last error %+v", s, s.LastError)
				}
				w.runs(service)
				if diff := withoutTimes(list).diff(withoutTimes(w.list(w.node.etc, w.node.units))); diff != "" {
					t.Errorf("not as before:\n%s", diff)
				}
				w.answers("one")
			}
			check()
			starts := w.starts()
			if n := count(starts, "1 bad"); n != 1 {
				t.Errorf("the bad update was started %d times: %v", n, starts)
			}

			w.stopAgent()
			w.startAgent()
			w.hangup()
			w.conditionIs(v1.Applied, v1.False, v1.ReasonHeld)
			check()
			if now := w.starts(); !slices.Equal(now, starts) {
				t.Errorf("started again: %v, before %v", now, starts)
			}
			if r := w.agent("plan"); r.code != 3 {
				t.Errorf("plan exits %d:\n%s%s", r.code, r.stdout, r.stderr)
			}

			w.edit(profile, "FAIL: "+fail.value, `FAIL: ""`)
			w.edit(profile, "VALUE: bad", "VALUE: good")
			w.deliver("a good update")
			w.answers("good")
			w.exits(0)
		})
	}
}

// A first install that fails leaves nothing: there is nothing to go back to.
func TestBadFirstInstallLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	before, units := w.list(w.node.etc, w.node.units), w.unitList()
	w.install()
	w.edit(profile, "timeout: 10s", "timeout: 3s")
	w.edit(profile, `FAIL: ""`, "FAIL: health")
	w.merge("a bad first install")
	w.hangup()
	w.conditionIs(v1.Applied, v1.False, v1.ReasonHeld)
	w.exits(1)
	w.gone(service)
	w.same(before, w.list(w.node.etc, w.node.units))
	w.sameUnits(units, w.unitList())
	if _, err := os.Lstat(w.node.packages + "/story/current"); err == nil {
		t.Error("the package is active")
	}
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// withoutTimes drops what changes when a file is written again with the same content.
func withoutTimes(l listing) listing {
	out := listing{}
	for path, text := range l {
		fields := strings.Fields(text)
		if len(fields) == 4 && strings.HasPrefix(text, "-") {
			text = strings.Join([]string{fields[0], fields[2], fields[3]}, " ")
		}
		out[path] = text
	}
	return out
}
