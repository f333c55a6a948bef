package integration_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// Two agents never work on one node; commands that look touch nothing, and say
// by their exit code what they found.
func TestLookingTouchesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{})
	everything := func() listing {
		return w.list(w.node.etc, w.node.units, w.node.packages, w.node.state, w.node.run, w.node.config)
	}
	if r := w.agent("status"); r.code != 1 || !strings.Contains(r.stderr, "status") {
		t.Errorf("status before anything exits %d: %s%s", r.code, r.stdout, r.stderr)
	}
	w.install()
	w.merge("run the story")
	if r := w.agent("plan"); r.code != 5 {
		t.Errorf("plan before the first start exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	} else {
		w.says(r.stdout, "stage", "package/story", "is not on the node yet", "file/"+w.node.etc+"/story.env", "does not exist",
			"service/"+service, "does not run, wanted running")
	}
	if _, err := os.Stat(w.node.state); err == nil {
		t.Error("plan made the state folder")
	}
	w.startAgent()
	w.hangup()
	w.converged()

	before, units := everything(), w.unitList()
	for _, look := range []struct {
		code int
		args []string
	}{
		{0, []string{"plan"}},
		{0, []string{"plan", "--offline"}},
		{0, []string{"plan", "-o", "json"}},
		{0, []string{"verify"}},
		{0, []string{"verify", "--offline"}},
		{0, []string{"verify", "-o", "yaml"}},
		{0, []string{"status"}},
		{0, []string{"status", "-o", "yaml"}},
		{0, []string{"version"}},
		{2, []string{"plan", "--nonsense"}},
		{2, []string{"status", "argument"}},
	} {
		if r := w.agent(look.args...); r.code != look.code {
			t.Errorf("%v exits %d, want %d:\n%s%s", look.args, r.code, look.code, r.stdout, r.stderr)
		}
	}
	for _, second := range [][]string{{"once"}, {"run"}} {
		r := w.agent(second...)
		if r.code != 1 {
			t.Errorf("a second agent, %v, exits %d: %s", second, r.code, r.stderr)
		}
		w.says(r.stderr, "another agent", w.node.state)
	}
	w.same(before, everything())
	w.sameUnits(units, w.unitList())

	// A change that isn't taken yet, and drift.
	w.edit(profile, "VALUE: one", "VALUE: two")
	w.merge("second value")
	r := w.agent("plan", "-o", "json")
	if r.code != 5 {
		t.Errorf("plan of a new change exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	var plan struct {
		Generation int64
		Steps      []struct {
			Action, Resource, Task, Reason string
			Drift                          bool
		}
	}
	w.must(json.Unmarshal([]byte(r.stdout), &plan))
	if plan.Generation != w.publishedGeneration() || len(plan.Steps) != 2 || plan.Steps[0].Action != "write" || plan.Steps[1].Action != "restart" ||
		plan.Steps[0].Drift || plan.Steps[0].Task != "env" {
		t.Errorf("plan: %+v", plan)
	}
	if r := w.agent("plan", "--offline"); r.code != 0 {
		t.Errorf("plan --offline exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.same(before, everything())
	w.hangup()
	w.converged()
	w.stopAgent()
	w.must(os.Remove(filepath.Join(w.node.etc, "story.env")))
	if r := w.agent("plan"); r.code != 5 || !strings.Contains(r.stdout, "was removed") {
		t.Errorf("plan of drift exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.missing(filepath.Join(w.node.etc, "story.env"))
	if r := w.agent("status"); r.code != 0 || !strings.Contains(r.stdout, "not running") {
		t.Errorf("status without an agent exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.must(w.git.Stop())
	for _, args := range [][]string{{"plan"}, {"verify"}} {
		if r := w.agent(args...); r.code != 1 || !strings.Contains(r.stderr, "SourceUnreachable") {
			t.Errorf("%v without a git server exits %d:\n%s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	if r := w.agent("plan", "--offline"); r.code != 5 {
		t.Errorf("plan --offline without a git server exits %d:\n%s%s", r.code, r.stdout, r.stderr)
	}
}

// The timestamp expires because nobody signed for too long: nothing new is
// taken, what was verified is still enforced, and status says so.
func TestExpiredTimestamp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, options{poll: time.Second, fleet: "expiries: {timestamp: 1m}\n"})
	w.install()
	w.merge("run the story")
	w.startAgent()
	w.converged()
	s := w.exits(0)
	if left := time.Until(s.Trust.Expires["timestamp"]); left > time.Minute {
		t.Errorf("the timestamp is good for %s", left)
	}
	c := w.conditionIs(v1.Fresh, v1.False, v1.ReasonExpired)
	t.Log(c.Message)
	w.says(c.Message, "timestamp", "re-sign")
	w.exits(4)
	for _, args := range [][]string{{"verify"}, {"verify", "--offline"}} {
		if r := w.agent(args...); r.code != 4 {
			t.Errorf("%v exits %d:\n%s%s", args, r.code, r.stdout, r.stderr)
		}
	}
	w.must(os.Remove(filepath.Join(w.node.etc, "story.env")))
	w.eventually("repaired", func() error { _, err := os.Stat(filepath.Join(w.node.etc, "story.env")); return err })
	w.systemctl("stop", service)
	w.answers("one")
	w.restartAgent()
	w.conditionIs(v1.Fresh, v1.False, v1.ReasonExpired)
	w.answers("one")
	w.exits(4)
	w.signer(w.fleet, "sign", "--keys", w.keys, "--refresh")
	w.signer(w.fleet, "publish")
	w.conditionIs(v1.Fresh, v1.True, v1.ReasonOK)
	w.exits(0)
}

// The agent as a service: it tells systemd how it is, stops at once and cleanly
// also in the middle of things, goes on where it was, and can be watched.
func TestAgentAsService(t *testing.T) {
	t.Parallel()
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	w := newWorld(t, options{config: "metrics: {listen: \"" + metrics + "\"}\n"})
	w.startAgent()
	u := w.unit(agentUnit)
	if u["ActiveState"] != "active" || u["StatusText"] == "" {
		t.Errorf("the agent's unit: %v", u)
	}
	w.install()
	w.edit(profile, "stableFor: 300ms, timeout: 10s", "stableFor: 20s, timeout: 60s")
	w.merge("run the story")
	w.hangup()
	w.eventually("the service is in probation", func() error {
		if u := w.unit(agentUnit); u["StatusText"] != "Probation" {
			return fmt.Errorf("%v", u)
		}
		_, err := w.ask()
		return err
	})
	first := w.runs(service)
	w.exits(5)
	w.stopAgent()
	if u := w.unit(agentUnit); u["Result"] != "success" || u["ActiveState"] != "inactive" {
		t.Errorf("the agent's unit: %v", u)
	}
	w.says(w.logTail(1), `"msg":"stopped"`)
	w.startAgentNoWait()
	w.eventually("it goes on", func() error {
		if u := w.unit(agentUnit); u["StatusText"] != "Probation" {
			return fmt.Errorf("%v", u)
		}
		return nil
	})
	w.stopAgent()
	w.edit(profile, "stableFor: 20s, timeout: 60s", "stableFor: 300ms, timeout: 10s")
	w.merge("less patience")
	w.startAgentNoWait()
	w.eventually("it works", func() error {
		if u := w.unit(agentUnit); u["ActiveState"] != "active" {
			return fmt.Errorf("%v", u)
		}
		return nil
	})
	w.converged()
	if u := w.runs(service); u["InvocationID"] != first["InvocationID"] {
		t.Error("the service was restarted")
	}
	if u := w.unit(agentUnit); u["StatusText"] != "Committed" {
		t.Errorf("the agent's unit: %v", u)
	}

	// systemctl reload is SIGHUP: it looks now, an hour before the next poll.
	w.edit(profile, "VALUE: one", "VALUE: two")
	w.merge("second value")
	w.systemctl("reload", agentUnit)
	w.converged()
	w.answers("two")

	resp, err := http.Get("http://" + metrics + "/metrics")
	w.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	w.must(err)
	for _, line := range []string{
		`gpuaas_node_agent_condition{reason="OK",status="True",type="Applied"} 1`,
		fmt.Sprintf(`gpuaas_node_agent_generation{which="observed"} %d`, w.publishedGeneration()),
		`gpuaas_node_agent_element{name="story",state="Current",type="package"} 1`,
	} {
		w.says(string(body), line)
	}

	data, err := os.ReadFile(w.node.log)
	w.must(err)
	for line := range strings.Lines(string(data)) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "" {
			t.Errorf("not a JSON log line: %s", line)
		}
	}
	if secret := regexp.MustCompile(`PRIVATE KEY`); secret.Match(data) {
		t.Error("the log holds a key")
	}

	// Killed, it leaves the service alone.
	w.must(syscall.Kill(w.unit(agentUnit).pid(t), syscall.SIGKILL))
	w.eventually("the agent is gone", func() error {
		if u := w.unit(agentUnit); u["ActiveState"] != "failed" {
			return fmt.Errorf("%v", u)
		}
		return nil
	})
	w.answers("two")
	w.startAgent()
	w.hangup()
	w.converged()
	w.exits(0)
}

func (w *world) startAgentNoWait() {
	w.t.Helper()
	w.forgetStatus()
	w.systemctl("start", "--no-block", agentUnit)
}
