package report_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpuaas/node-agent/agent/internal/report"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func TestConditionKeepsSinceWhileItStaysTheSame(t *testing.T) {
	t0, t1, t2 := time.Unix(100, 0).UTC(), time.Unix(200, 0).UTC(), time.Unix(300, 0).UTC()
	conds := report.SetCondition(nil, t0, v1.Condition{Type: v1.Fresh, Status: v1.True, Reason: v1.ReasonOK})
	conds = report.SetCondition(conds, t1, v1.Condition{Type: v1.Fresh, Status: v1.True, Reason: v1.ReasonOK, Message: "new words"})
	if conds[0].Since != t0 || conds[0].Message != "new words" {
		t.Errorf("same status: %+v", conds[0])
	}
	conds = report.SetCondition(conds, t2, v1.Condition{Type: v1.Fresh, Status: v1.False, Reason: v1.ReasonExpired})
	if conds[0].Since != t2 || len(conds) != 1 {
		t.Errorf("changed status: %+v", conds)
	}
}

func TestStatusRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "status.json")
	if _, err := report.ReadStatus(path); err == nil || !strings.Contains(err.Error(), "has not run") {
		t.Errorf("missing status: %v", err)
	}
	want := v1.NodeStatus{Node: "gpu-001", DesiredGeneration: 3}
	if err := report.WriteStatus(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := report.ReadStatus(path)
	if err != nil || got.Node != want.Node || got.DesiredGeneration != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAuditChains(t *testing.T) {
	dir := t.TempDir()
	appendTo := func(events ...string) {
		a, err := report.OpenAudit(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if err := a.Append(report.Record{Event: e, Result: "ok"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	appendTo("verified", "step")
	appendTo("committed") // the chain goes on after a restart
	log := filepath.Join(dir, "audit.jsonl")
	// A power cut in the middle of a line.
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"event":"st`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	appendTo("held")

	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	if len(lines) != 4 {
		t.Fatalf("%d lines:\n%s", len(lines), data)
	}
	previous := ""
	for i, line := range lines {
		var r report.Record
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Previous != previous {
			t.Errorf("line %d: previous is %q, want %q", i, r.Previous, previous)
		}
		previous = report.HashLine(line)
	}
}

// A disk that is full in the middle of a record: what comes later isn't spoilt.
func TestAuditLogSurvivesAFullDisk(t *testing.T) {
	dir := t.TempDir()
	a, err := report.OpenAudit(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Append(report.Record{Event: "verified", Result: "ok"}); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "audit.jsonl")
	info, err := os.Stat(log)
	if err != nil {
		t.Fatal(err)
	}
	// A limit of the process' own stands for the disk's.
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	full := unix.Rlimit{Cur: uint64(info.Size()) + 10, Max: before.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	writeErr := a.Append(report.Record{Event: "step", Result: "ok"})
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if writeErr == nil {
		t.Error("a record that doesn't fit was written")
	}
	if err := a.Append(report.Record{Event: "committed", Result: "ok"}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
	var last report.Record
	if len(lines) != 2 || json.Unmarshal(lines[1], &last) != nil || last.Previous != report.HashLine(lines[0]) {
		t.Errorf("the log is\n%s", data)
	}
}

func TestMetricsAreTheStatus(t *testing.T) {
	m := report.NewMetrics()
	scrape := func() string {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		body, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := scrape(); strings.Contains(got, "gpuaas_") {
		t.Errorf("metrics before the first status:\n%s", got)
	}
	m.Set(v1.NodeStatus{
		Node: "gpu-001", Phase: "Committed", DesiredGeneration: 5, ObservedGeneration: 4, Repairs: 2,
		Conditions: []v1.Condition{{Type: v1.Fresh, Status: v1.False, Reason: v1.ReasonExpired}},
		Packages:   []v1.ElementStatus{{Name: "x", State: v1.ElementCurrent}},
		Trust:      &v1.TrustStatus{Expires: map[string]time.Time{"timestamp": time.Unix(42, 0)}},
	})
	got := scrape()
	for _, want := range []string{
		`gpuaas_node_agent_condition{reason="Expired",status="False",type="Fresh"} 1`,
		`gpuaas_node_agent_generation{which="desired"} 5`,
		`gpuaas_node_agent_generation{which="observed"} 4`,
		`gpuaas_node_agent_element{name="x",state="Current",type="package"} 1`,
		`gpuaas_node_agent_metadata_expiry_timestamp_seconds{role="timestamp"} 42`,
		`gpuaas_node_agent_drift_repairs_total 2`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in:\n%s", want, got)
		}
	}
}
