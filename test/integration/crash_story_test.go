package integration_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// An agent that is killed again and again, during its first install and during
// updates, still brings the node to exactly what is wanted, starts the service
// once per change, and leaves nothing behind.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	const files = 20
	profileOf := func(value string) string {
		var b strings.Builder
		b.WriteString(strings.Replace(w.storyProfile(), "VALUE: one", "VALUE: "+value, 1))
		for i := range files {
			fmt.Fprintf(&b, "  - id: file-%d\n    type: runtime.write_config_file\n    with: {path: %s/file-%d, content: %q}\n",
				i, w.node.etc, i, strings.Repeat(value+"\n", 200))
		}
		return b.String()
	}
	kills := 0
	for round, value := range []string{"one", "two", "three", "four"} {
		version := fmt.Sprint(round/2 + 1)
		if round%2 == 0 {
			w.push(w.packageFolder("story", version, map[string]string{"data/a": strings.Repeat("a"+version, 1<<20), "data/b": "b"}))
		}
		w.write(profile, profileOf(value))
		w.merge("value " + value)
		// First at any time while it polls, verifies and stages, then in the middle
		// of the steps, one to six steps after the kill before.
		before, committed := w.recorded("step"), w.recorded("committed")
		for range 3 {
			end := time.Now().Add(rand.N(500 * time.Millisecond))
			w.liveAndDie(func() bool { return time.Now().After(end) })
			kills++
		}
		t.Logf("value %s: %d steps", value, w.recorded("step")-before)
		for range 4 {
			target := w.recorded("step") + 1 + rand.IntN(6)
			end := time.Now().Add(15 * time.Second)
			w.liveAndDie(func() bool {
				// Once it committed there are no more steps to take.
				return w.recorded("step") >= target || w.recorded("committed") > committed || time.Now().After(end)
			})
			kills++
		}
		t.Logf("value %s: %d steps", value, w.recorded("step")-before)
		if r := w.agent("once"); r.code != 0 {
			t.Fatalf("once after kills exits %d:\n%s", r.code, r.stderr)
		}
		w.runs(service)
		if a := w.answers(value); a.Version != version {
			t.Errorf("answer: %+v", a)
		}
		for i := range files {
			path := filepath.Join(w.node.etc, fmt.Sprintf("file-%d", i))
			if got := contentOf(t, path); got != strings.Repeat(value+"\n", 200) {
				t.Errorf("%s is half written or old: %.40q...", path, got)
			}
		}
	}
	if got, want := w.starts(), []string{"1 one", "1 two", "2 three", "2 four"}; !slices.Equal(got, want) {
		t.Errorf("after %d kills the service was started %v, want %v", kills, got, want)
	}
	for _, dir := range []string{w.node.etc, w.node.units, w.node.packages, w.node.state, w.node.run} {
		w.must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && (strings.Contains(d.Name(), ".tmp") || strings.Contains(d.Name(), "former") || strings.Contains(d.Name(), "partial")) {
				t.Errorf("left behind: %s", path)
			}
			return err
		}))
	}
	for _, dir := range []string{filepath.Join(w.node.packages, ".staging"), filepath.Join(w.node.state, "blobs", "sha256")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range entries {
			t.Errorf("left behind: %s", filepath.Join(dir, e.Name()))
		}
	}
	if r := w.agent("plan"); r.code != 0 {
		t.Errorf("plan exits %d:\n%s", r.code, r.stdout)
	}
	w.exits(0)
}

// recorded counts the records of an event; a kill may have cut the last line off.
func (w *world) recorded(event string) int {
	data, err := os.ReadFile(filepath.Join(w.node.state, "audit", "audit.jsonl"))
	if !errors.Is(err, fs.ErrNotExist) {
		w.must(err)
	}
	return strings.Count(string(data), `"event":"`+event+`"`)
}

// liveAndDie runs the agent and kills it when it is due, with no chance to tidy up.
func (w *world) liveAndDie(due func() bool) {
	w.t.Helper()
	cmd := exec.Command(w.agentBinary(), "--user", "--config", w.configFile(), "run")
	cmd.Env = w.env()
	log, err := os.OpenFile(w.node.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	w.must(err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	w.must(cmd.Start())
	for !due() {
		time.Sleep(time.Millisecond)
	}
	w.must(cmd.Process.Kill())
	_ = cmd.Wait()
}
