package v1_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"gopkg.in/yaml.v3"
)

func TestResources(t *testing.T) {
	m, err := v1.DecodeManifest("m", []byte(manifestText))
	if err != nil {
		t.Fatal(err)
	}
	resources, err := m.Resources()
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, r := range resources {
		refs = append(refs, r.Ref())
	}
	want := []string{"package/node-exporter", "file//etc/gpuaas/node-exporter.env", "file//etc/gpuaas/node-exporter.conf",
		"unit/gpuaas-node-exporter.service", "service/gpuaas-node-exporter.service"}
	if !reflect.DeepEqual(refs, want) {
		t.Errorf("refs %v, want %v", refs, want)
	}
	if p := resources[0].(task.Package); !p.Activate || p.Source != "" || p.Repository != "registry.example.com/gpuaas/node-exporter" {
		t.Errorf("package %+v", p)
	}
	s := resources[4].(task.Service)
	if on := []string{"file//etc/gpuaas/node-exporter.env", "package/node-exporter", "unit/gpuaas-node-exporter.service"}; !reflect.DeepEqual(s.RestartOn, on) {
		t.Errorf("restartOn %v, want %v", s.RestartOn, on)
	}
	if s.Source != "exporter" || s.Health.Timeout != time.Minute || s.Enabled == nil || !*s.Enabled {
		t.Errorf("service %+v", s)
	}
}

// TestProblems: what was built rather than decoded is checked as well.
func TestProblems(t *testing.T) {
	m := v1.NodeManifest{TypeMeta: v1.Meta(v1.KindNodeManifest), Node: "n", Generation: 1, Tasks: []v1.Task{
		{ID: "a", Type: "artifact.fetch", With: &task.ServiceControl{Unit: "a.service", State: task.Running, RestartOn: []string{"b"}}},
		{ID: "c", Type: "artifact.fetch"},
	}}
	want := []v1.Problem{
		{Field: "tasks[0].type", Message: `is "artifact.fetch", but with is that of runtime.service_control`},
		{Field: "tasks[1].with", Message: "missing; this field is required"},
		{Field: "tasks[0].with.restartOn[0]", Message: `no task "b" in this manifest`},
	}
	if got := m.Problems(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := m.Resources(); err == nil || !strings.HasPrefix(err.Error(), "tasks[0].type: is") {
		t.Errorf("Resources: %v", err)
	}
	if _, err := m.Encode(); err == nil || !strings.Contains(err.Error(), `cannot encode the manifest of "n": tasks[0].type`) {
		t.Errorf("Encode: %v", err)
	}
	m.Tasks = nil
	m.Kind = v1.KindNode
	if _, err := m.Encode(); err == nil {
		t.Error("a manifest of another kind was encoded")
	}
	m.Kind, m.Source.Repo = v1.KindNodeManifest, "\xff"
	if _, err := m.Encode(); err == nil {
		t.Error("text that isn't UTF-8 was encoded")
	}
}

func TestLimits(t *testing.T) {
	const head = "apiVersion: fleet.gpuaas.dev/v1\nkind: NodeManifest\nnode: n\ngeneration: 1\n" +
		"source: {repo: x, commit: \"0123456789012345678901234567890123456789\"}\ntasks:\n"
	item := func(i int) string {
		return fmt.Sprintf("  - {id: t%d, type: runtime.write_config_file, with: {path: /etc/gpuaas/%d, content: x}}\n", i, i)
	}
	var b strings.Builder
	b.WriteString(head)
	for i := range v1.MaxTasks {
		b.WriteString(item(i))
	}
	m, err := v1.DecodeManifest("m", []byte(b.String()))
	if err != nil || len(m.Tasks) != v1.MaxTasks {
		t.Fatalf("%d tasks: %v", len(m.Tasks), err)
	}
	b.WriteString(item(v1.MaxTasks))
	if _, err := v1.DecodeManifest("m", []byte(b.String())); err == nil || err.Error() != "m:7:3: tasks: found 1001; at most 1000 are allowed" {
		t.Errorf("1001 tasks: %v", err)
	}
	env := head + "  - {id: a, type: runtime.write_env_file, with: {path: /etc/a, env: {"
	for i := range task.MaxEnv + 1 {
		env += fmt.Sprintf("N%d: x, ", i)
	}
	if _, err := v1.DecodeManifest("m", []byte(env+"}}}\n")); err == nil || !strings.Contains(err.Error(), "tasks[0].with.env: found 1001 variables; at most 1000 are allowed") {
		t.Errorf("1001 variables: %v", err)
	}
	if _, err := v1.DecodeManifest("m", make([]byte, strict.MaxSize+1)); err == nil || !strings.Contains(err.Error(), "at most 1048576 are allowed") {
		t.Errorf("too large: %v", err)
	}
}

func TestFleetDefaults(t *testing.T) {
	in := v1.Fleet{Teams: []v1.Team{{Name: "a"}, {Name: "b", Threshold: 2}}, Expiries: v1.Expiries{Team: v1.Duration(time.Hour)}}
	got := in.WithDefaults()
	want := v1.Fleet{
		Teams: []v1.Team{{Name: "a", Threshold: 1}, {Name: "b", Threshold: 2}},
		Expiries: v1.Expiries{Root: v1.DefaultRootExpiry, Targets: v1.DefaultTargetsExpiry, Team: v1.Duration(time.Hour),
			Snapshot: v1.DefaultSnapshotExpiry, Timestamp: v1.DefaultTimestampExpiry},
		Signed: v1.SignedBranch{Branch: "signed"}, InstallRoot: "/opt/gpuaas/packages",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if in.Teams[0].Threshold != 0 {
		t.Error("WithDefaults changed its receiver")
	}
	if got := (v1.Fleet{}).WithDefaults().Teams; !reflect.DeepEqual(got, []v1.Team{{Name: "fleet", Threshold: 1}}) {
		t.Errorf("teams of an empty fleet: %+v", got)
	}
	if (v1.Node{}).TeamOf() != "fleet" || (v1.Node{Team: "a"}).TeamOf() != "a" {
		t.Error("TeamOf")
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"gpu": "true", "zone": "a", "empty": ""}
	for _, tt := range []struct {
		want map[string]string
		ok   bool
	}{
		{nil, true}, {map[string]string{"gpu": "true"}, true}, {map[string]string{"gpu": "true", "zone": "a"}, true},
		{map[string]string{"gpu": "false"}, false}, {map[string]string{"gpu": "true", "rack": "1"}, false},
		{map[string]string{"empty": ""}, true}, {map[string]string{"absent": ""}, false},
	} {
		if got := (v1.Selector{MatchLabels: tt.want}).Matches(labels); got != tt.ok {
			t.Errorf("%v matches: %v", tt.want, got)
		}
	}
}

func TestValues(t *testing.T) {
	const in = "apiVersion: fleet.gpuaas.dev/v1\nkind: Node\nid: n\nvalues: {a: 010, b: \"010\", c: 1.50, d: True, e: yes, f: .inf, g: -3, h: \"\", i: \"true\"}\n"
	n, err := v1.DecodeNode("n", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	want := v1.Values{
		"a": {"010", "!!int"}, "b": {"010", "!!str"}, "c": {"1.50", "!!float"}, "d": {"True", "!!bool"}, "e": {"yes", "!!str"},
		"f": {".inf", "!!float"}, "g": {"-3", "!!int"}, "h": {"", "!!str"}, "i": {"true", "!!str"},
	}
	if !reflect.DeepEqual(n.Values, want) {
		t.Errorf("got %v, want %v", n.Values, want)
	}
	asYAML, err := yaml.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	back, err := v1.DecodeNode("n", asYAML)
	if err != nil || !reflect.DeepEqual(back, n) {
		t.Errorf("yaml.v3 wrote\n%s\nread as %+v, %v", asYAML, back, err)
	}
	asJSON, err := json.Marshal(n.Values)
	if err != nil {
		t.Fatal(err)
	}
	const wantJSON = `{"a":"010","b":"010","c":1.50,"d":true,"e":"yes","f":".inf","g":-3,"h":"","i":"true"}`
	if string(asJSON) != wantJSON {
		t.Errorf("JSON %s, want %s", asJSON, wantJSON)
	}
}

// TestTemplatesKeepPositions: With is the very text that somebody wrote.
func TestTemplatesKeepPositions(t *testing.T) {
	const in = "apiVersion: fleet.gpuaas.dev/v1\nkind: Profile\nname: p\ntasks:\n  - id: a\n    type: runtime.write_env_file\n    with:\n      path: /etc/${node.id}\n      env: {A: \"${values.a}\"}\n"
	p, err := v1.DecodeProfile("p.yaml", []byte(in))
	if err != nil {
		t.Fatal(err)
	}
	with := p.Tasks[0].With
	if with.Kind != yaml.MappingNode || with.Line != 8 || with.Content[1].Value != "/etc/${node.id}" || !v1.HasPlaceholder(with.Content[1]) {
		t.Errorf("with = %+v", with)
	}
	// What interpolation makes of it is decoded at those positions.
	with.Content[1].Value = "etc/n"
	err = strict.DecodeNode("p.yaml", with, new(task.WriteEnvFile))
	if err == nil || !strings.HasPrefix(err.Error(), `p.yaml:8:13: path: found "etc/n"; allowed is an absolute path`) {
		t.Errorf("error %v", err)
	}
}

func TestConditionLookup(t *testing.T) {
	s := v1.NodeStatus{Conditions: []v1.Condition{{Type: v1.Fresh, Reason: v1.ReasonOK}}}
	if c := s.Condition(v1.Fresh); c == nil || c.Reason != v1.ReasonOK {
		t.Errorf("Fresh = %+v", c)
	}
	if c := s.Condition(v1.Healthy); c != nil {
		t.Errorf("Healthy = %+v", c)
	}
}
