package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/agent/internal/report"
	"github.com/gpuaas/node-agent/internal/exitcode"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// An agent that died an hour ago left a document in which all is well.
func TestOldStatusIsStale(t *testing.T) {
	written := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	well := v1.NodeStatus{
		Updated: written, DesiredGeneration: 2, ObservedGeneration: 2,
		Trust: &v1.TrustStatus{Expires: map[string]time.Time{"root": written.AddDate(1, 0, 0), "timestamp": written.AddDate(0, 0, 3)}},
	}
	for _, c := range []v1.ConditionType{v1.Verified, v1.Fresh, v1.Staged, v1.Applied, v1.Healthy} {
		well.Conditions = append(well.Conditions, v1.Condition{Type: c, Status: v1.True, Reason: v1.ReasonOK, Since: written})
	}
	for name, c := range map[string]struct {
		age    time.Duration
		code   int
		reason v1.Reason
		says   string
	}{
		"new":     {time.Minute, exitcode.OK, v1.ReasonOK, ""},
		"old":     {2 * time.Hour, exitcode.Stale, v1.ReasonSourceUnreachable, "2h0m0s old"},
		"expired": {4 * 24 * time.Hour, exitcode.Stale, v1.ReasonExpired, "timestamp metadata expired"},
	} {
		s := aged(well, written.Add(c.age), time.Hour)
		fresh := report.Condition(s, v1.Fresh)
		if code := statusCode(s); code != c.code || fresh.Reason != c.reason || !strings.Contains(fresh.Message, c.says) {
			t.Errorf("%s: exit code %d, %+v", name, code, fresh)
		}
	}
	if report.Condition(well, v1.Fresh).Status != v1.True {
		t.Error("the document itself was changed")
	}
}

func TestRefusedPlanDoesNotSayThatAllIsWell(t *testing.T) {
	var out bytes.Buffer
	if err := printPlan(&out, planView{Conflicts: []issueView{{"file//etc/x", "x", "is somebody else's"}}}, true); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "Nothing to do") || !strings.Contains(text, "can't be applied") || !strings.Contains(text, "somebody else's") {
		t.Error(text)
	}
}
