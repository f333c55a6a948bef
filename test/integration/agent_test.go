package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// agentUnit is the unit that the agent runs as, in the node's manager.
const agentUnit = "gpuaas-node-agent.service"

// startAgent installs the agent's unit, the first time, and starts it. It returns
// when the agent said READY.
func (w *world) startAgent() {
	w.t.Helper()
	dir := filepath.Join(w.manager.RuntimeDir, "systemd", "user")
	path := filepath.Join(dir, agentUnit)
	if _, err := os.Stat(path); err != nil {
		w.must(os.MkdirAll(dir, 0o755))
		w.must(os.WriteFile(path, []byte(fmt.Sprintf(`[Unit]
Description=gpuaas node agent
StartLimitIntervalSec=0
[Service]
Type=notify
ExecStart=%s --user --config %s run
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=60
TimeoutStartSec=120
StandardOutput=append:%[3]s
StandardError=append:%[3]s
`, w.agentBinary(), w.configFile(), w.node.log)), 0o600))
		w.systemctl("daemon-reload")
	}
	w.forgetStatus()
	w.systemctl("start", agentUnit)
}

// forgetStatus removes what a former agent said, so that nobody waits for that.
func (w *world) forgetStatus() {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.node.run, "status.json")); !errors.Is(err, fs.ErrNotExist) {
		w.must(err)
	}
}

func (w *world) restartAgent() {
	w.t.Helper()
	w.stopAgent()
	w.startAgent()
}

func (w *world) agentBinary() string { return filepath.Join(built, "gpuaas-node-agent") }

func (w *world) stopAgent() { w.t.Helper(); w.systemctl("stop", agentUnit) }

// hangup has the agent poll and look at everything now. It returns when the
// signal was sent.
func (w *world) hangup() {
	w.t.Helper()
	w.must(syscall.Kill(w.unit(agentUnit).pid(w.t), syscall.SIGHUP))
}

// agent runs a command of the agent's binary.
func (w *world) agent(args ...string) result {
	w.t.Helper()
	return w.command(w.dir, w.agentBinary(), append([]string{"--user", "--config", w.configFile()}, args...)...)
}

// status is what `status` says, and its exit code.
func (w *world) status() (v1.NodeStatus, int) {
	w.t.Helper()
	r := w.agent("status", "-o", "json")
	s, err := v1.DecodeStatus("status", []byte(r.stdout))
	if err != nil {
		w.t.Fatalf("status: %v\n%s%s", err, r.stdout, r.stderr)
	}
	return s, r.code
}

// peek reads the status document, for waiting.
func (w *world) peek() (v1.NodeStatus, error) {
	data, err := os.ReadFile(filepath.Join(w.node.run, "status.json"))
	if err != nil {
		return v1.NodeStatus{}, err
	}
	return v1.DecodeStatus("status.json", data)
}

// converged waits until the agent says that the node is as the newest signed commit wants.
func (w *world) converged() {
	w.t.Helper()
	commit, generation := w.published(), w.publishedGeneration()
	w.eventually("converged", func() error {
		s, err := w.peek()
		if err != nil {
			return err
		}
		if s.SourceCommit != commit || s.ObservedGeneration != generation || s.DesiredGeneration != generation || s.Phase != "Committed" {
			return fmt.Errorf("commit %.12s (wanted %.12s), generation %d of %d (wanted %d), phase %s, last error %+v",
				s.SourceCommit, commit, s.ObservedGeneration, s.DesiredGeneration, generation, s.Phase, s.LastError)
		}
		return nil
	})
}

// conditionIs waits for a condition.
func (w *world) conditionIs(t v1.ConditionType, status v1.ConditionStatus, reason v1.Reason) v1.Condition {
	w.t.Helper()
	var found v1.Condition
	w.eventually(fmt.Sprintf("%s is %s: %s", t, status, reason), func() error {
		s, err := w.peek()
		if err != nil {
			return err
		}
		found = *s.Condition(t)
		if found.Status != status || found.Reason != reason {
			return fmt.Errorf("%s is %s: %s: %s; last error %+v", t, found.Status, found.Reason, found.Message, s.LastError)
		}
		return nil
	})
	return found
}

// exits checks the exit code of `status`.
func (w *world) exits(code int) v1.NodeStatus {
	w.t.Helper()
	s, got := w.status()
	if got != code {
		w.t.Errorf("status exits %d, want %d: %+v, last error %+v", got, code, s.Conditions, s.LastError)
	}
	return s
}

// auditRecord is what stories read of a line of the audit log.
type auditRecord struct {
	Event, Action, Resource, Reason, Result, Error string
}

// audit is the audit log.
func (w *world) audit() []auditRecord {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.node.state, "audit", "audit.jsonl"))
	w.must(err)
	var out []auditRecord
	for line := range strings.Lines(string(data)) {
		var r auditRecord
		w.must(json.Unmarshal([]byte(line), &r))
		out = append(out, r)
	}
	return out
}

// events counts the records of an event in the audit log.
func (w *world) events(event string) (n int) {
	w.t.Helper()
	for _, r := range w.audit() {
		if r.Event == event {
			n++
		}
	}
	return n
}

// logTail is the end of the agent's log.
func (w *world) logTail(lines int) string {
	data, err := os.ReadFile(w.node.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
