package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/schema/trust"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/test/harness"
)

// Somebody who can push to the signed branch, and has no key, changes nothing but
// the status; the next proper publish heals that.
func TestUnsignedCommitIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	w.install()
	w.deliver("run the story")
	before, list := w.runs(service), w.list()
	good := w.published()

	target := "targets/" + trust.TargetPath(v1.DefaultTeam, nodeID)
	forged := strings.ReplaceAll(w.remote.MustGit(t, "show", "signed:"+target), "VALUE: one", "VALUE: forged")
	bad := w.remote.MustCommit(t, harness.GitCommit{Branch: "signed", Files: map[string][]byte{target: []byte(forged)}})
	w.hangup()
	c := w.conditionIs(v1.Verified, v1.False, v1.ReasonMixAndMatch)
	w.says(c.Message, bad[:12])
	s := w.exits(1)
	if s.LastError == nil || s.LastError.Component != "trust" || s.SourceCommit != good {
		t.Errorf("status: %+v", s)
	}
	if r := w.agent("status"); !strings.Contains(r.stdout, "MixAndMatch") {
		t.Errorf("status shows no reason:\n%s", r.stdout)
	}
	if u := w.runs(service); u["InvocationID"] != before["InvocationID"] {
		t.Error("the service was restarted")
	}
	w.same(list, w.list())
	w.answers("one")
	if r := w.agent("verify"); r.code != 1 {
		t.Errorf("verify exits %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	// Drift is repaired all the same, and the agent stays in its refusal over a restart.
	w.must(os.Remove(filepath.Join(w.node.etc, "story.env")))
	w.eventually("repaired while refusing", func() error { _, err := os.Stat(filepath.Join(w.node.etc, "story.env")); return err })
	w.restartAgent()
	w.conditionIs(v1.Verified, v1.False, v1.ReasonMixAndMatch)
	w.answers("one")

	// The next merge puts the branch right: what nobody signed is made anew.
	w.edit(profile, "VALUE: one", "VALUE: two")
	w.merge("second value")
	w.hangup()
	w.converged()
	w.answers("two")
	w.exits(0)
}

// What leaves the fleet leaves the node, and nothing else does.
func TestRemoval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	foreign := "foreign.service"
	mine := []string{filepath.Join(w.node.etc, "mine.env"), filepath.Join(w.node.units, foreign), filepath.Join(w.node.units, "gpuaas-mine.service"),
		filepath.Join(w.node.packages, "mine", "versions", "1", "file")}
	unitText := "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n"
	for i, path := range mine {
		w.must(os.MkdirAll(filepath.Dir(path), 0o755))
		w.must(writeFile(path, map[bool]string{true: unitText, false: "mine"}[i == 1 || i == 2]))
	}
	w.systemctl("daemon-reload")
	w.systemctl("enable", "--now", foreign, "gpuaas-mine.service")
	others := []unit{w.runs(foreign), w.runs("gpuaas-mine.service")}
	before := w.list()

	w.startAgent()
	w.install()
	w.deliver("run the story")
	w.answers("one")
	u := w.runs(service)

	w.remove(profile)
	w.deliver("no more story")
	w.gone(service)
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", u.pid(t))); err == nil {
		t.Error("the process still runs")
	}
	w.missing(filepath.Join(w.node.etc, "story.env"), filepath.Join(w.node.units, service))
	after := w.list()
	delete(after, filepath.Join(w.node.packages, ".staging"))
	w.same(before, after)
	for i, name := range []string{foreign, "gpuaas-mine.service"} {
		if now := w.runs(name); now["InvocationID"] != others[i]["InvocationID"] {
			t.Errorf("%s was restarted", name)
		}
	}
	if s := w.exits(0); len(s.Packages) != 0 || len(s.Tasks) != 0 {
		t.Errorf("status: %+v", s)
	}

	// And back again.
	w.write(profile, w.storyProfile())
	w.deliver("the story again")
	w.answers("one")
}

// A file that is there already and isn't the agent's is never overwritten,
// unless the task says so.
func TestConflictAndAdoption(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	env, unitFile := filepath.Join(w.node.etc, "story.env"), filepath.Join(w.node.units, service)
	w.must(writeFile(env, "MINE=1\n"))
	w.must(writeFile(unitFile, "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=default.target\n"))
	w.systemctl("daemon-reload")
	w.systemctl("enable", "--now", service)
	before, list, units := w.runs(service), w.list(w.node.etc, w.node.units), w.unitList()
	w.startAgent()
	w.install()
	w.merge("run the story")
	w.hangup()
	c := w.conditionIs(v1.Applied, v1.False, v1.ReasonConflict)
	w.says(c.Message, "story.env", service, "adopt: true")
	w.exits(1)
	w.same(list, w.list(w.node.etc, w.node.units))
	if u := w.runs(service); u["InvocationID"] != before["InvocationID"] {
		t.Error("somebody's service was restarted")
	}
	w.sameUnits(units, w.unitList())

	w.edit(profile, "      mode: \"0600\"\n", "      mode: \"0600\"\n      adopt: true\n")
	w.edit(profile, "      unit: "+service+"\n      content", "      unit: "+service+"\n      adopt: true\n      content")
	w.deliver("take it over")
	w.answers("one")
	if u := w.runs(service); u["InvocationID"] == before["InvocationID"] {
		t.Error("not restarted with its new unit")
	}
	w.exits(0)
}
