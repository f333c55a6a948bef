package integration_test

import (
	"path/filepath"
	"slices"
	"testing"
)

// A merged change becomes a running service; the next one restarts it, once; a
// change of another node does nothing here.
func TestChangeBecomesService(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	w.startAgent()
	w.install()
	w.deliver("run the story")

	first := w.runs(service)
	if got := w.environ(first.pid(t), "VALUE"); got != "one" {
		t.Errorf("the process has VALUE=%s", got)
	}
	if a := w.answers("one"); a.Version != "1" || a.PID != first.pid(t) {
		t.Errorf("answer: %+v", a)
	}
	s := w.exits(0)
	if s.Node != nodeID || s.Trust == nil || len(s.Packages) != 1 || len(s.Tasks) != 3 || s.LastError != nil {
		t.Errorf("status: %+v", s)
	}

	w.edit(profile, "VALUE: one", "VALUE: two")
	w.deliver("second value")
	second := w.runs(service)
	if second["InvocationID"] == first["InvocationID"] || second["NRestarts"] != "0" {
		t.Errorf("not restarted by the agent: %v, before %v", second, first)
	}
	if got := w.environ(second.pid(t), "VALUE"); got != "two" {
		t.Errorf("the process has VALUE=%s", got)
	}
	w.answers("two")
	if got := w.starts(); !slices.Equal(got, []string{"1 one", "1 two"}) {
		t.Errorf("started %v", got)
	}

	before, steps := w.list(), w.events("step")
	w.write("nodes/gpu-002.yaml", nodeYAML(otherNode)+"values: {x: y}\ntasks:\n  - id: note\n    type: runtime.write_config_file\n"+
		"    with: {path: "+filepath.Join(w.node.etc, "other")+", content: of the other node}\n")
	w.deliver("a change of the other node")
	w.same(before, w.list())
	if now := w.runs(service); now["InvocationID"] != second["InvocationID"] {
		t.Error("restarted by a change of another node")
	}
	if now := w.events("step"); now != steps {
		t.Errorf("%d steps for a change of another node", now-steps)
	}
	w.exits(0)

	// A new version of the package, and the old one stays for a rollback.
	w.push(w.packageFolder("story", "2", nil))
	w.deliver("version 2")
	if a := w.answers("two"); a.Version != "2" {
		t.Errorf("answer: %+v", a)
	}
	if got := w.starts(); !slices.Equal(got, []string{"1 one", "1 two", "2 two"}) {
		t.Errorf("started %v", got)
	}
}
