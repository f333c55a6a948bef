package task_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
)

var update = flag.Bool("update", false, "write the golden files")

// fieldsOf lists the fields of a struct type, nested ones below them.
func fieldsOf(b *strings.Builder, t reflect.Type, indent string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		b.WriteString(indent + f.Tag.Get("yaml") + " " + f.Type.String() + "\n")
		fieldsOf(b, f.Type, indent+"  ")
	}
}

// TestKinds lists the whole closed set: whoever adds to what a manifest can ask
// of a node changes this golden file, and a reviewer sees it.
func TestKinds(t *testing.T) {
	var b strings.Builder
	for _, k := range task.Kinds() {
		if k.New().Type() != k.Type {
			t.Errorf("%s: New gives a %s", k.Type, k.New().Type())
		}
		b.WriteString(k.Type + ": " + k.Doc + "\n")
		fieldsOf(&b, reflect.TypeOf(k.New()), "  ")
	}
	const path = "testdata/kinds.golden"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	if types := task.Types(); !slices.IsSorted(types) || len(types) != len(task.Kinds()) {
		t.Errorf("types = %v", types)
	}
	if _, ok := task.New("runtime.run_command"); ok {
		t.Error("an unknown kind was made")
	}
}

func TestResources(t *testing.T) {
	on := true
	for _, tt := range []struct {
		name string
		spec task.Spec
		want task.Resource
		ref  string
	}{
		{"fetch", &task.ArtifactFetch{Name: "a", Ref: "r.example/a", Digest: "sha256:1"},
			task.Package{Name: "a", Repository: "r.example/a", Digest: "sha256:1", Source: "id"}, "package/a"},
		{"config file, default mode", &task.WriteConfigFile{Path: "/etc/a", Content: "x"},
			task.File{Path: "/etc/a", Content: []byte("x"), Mode: 0o640, Source: "id"}, "file//etc/a"},
		{"env file", &task.WriteEnvFile{Path: "/etc/a", Mode: "0600", Owner: "o", Group: "g", Adopt: true},
			task.File{Path: "/etc/a", Content: task.Env{}.Render("id"), Mode: 0o600, Owner: "o", Group: "g", Adopt: true, Source: "id"}, "file//etc/a"},
		{"unit from a package", &task.InstallServiceUnit{Unit: "a.service", From: &task.PackageFile{Package: "p", File: "f"}},
			task.Unit{Name: "a.service", Package: "p", File: "f", Source: "id"}, "unit/a.service"},
		{"unit inline", &task.InstallServiceUnit{Unit: "a.timer", Content: "x", Adopt: true},
			task.Unit{Name: "a.timer", Content: []byte("x"), Adopt: true, Source: "id"}, "unit/a.timer"},
		{"service, default health", &task.ServiceControl{Unit: "a.service", State: task.Running, Enabled: &on, Health: &task.HealthCheck{}},
			task.Service{Unit: "a.service", State: task.Running, Enabled: &on, Source: "id",
				Health: &task.Health{StableFor: 5 * time.Second, Timeout: time.Minute}}, "service/a.service"},
		{"one-shot", &task.ServiceControl{Unit: "a.service", Action: task.Reload, Health: &task.HealthCheck{
			StableFor: task.Duration(time.Second), Timeout: task.Duration(time.Hour), HTTP: &task.HTTPCheck{URL: "u"}, TCP: &task.TCPCheck{Address: "t"}}},
			task.Service{Unit: "a.service", Action: task.Reload, Source: "id",
				Health: &task.Health{StableFor: time.Second, Timeout: time.Hour, HTTPURL: "u", TCPAddress: "t"}}, "action/id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := tt.spec.Resources("id")
			if !reflect.DeepEqual(got, []task.Resource{tt.want}) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if got[0].Ref() != tt.ref || got[0].Task() != "id" {
				t.Errorf("ref %q of task %q, want %q of id", got[0].Ref(), got[0].Task(), tt.ref)
			}
		})
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]string{
		"90s": "1m30s", "60s": "1m", "6h": "6h", "90d": "90d", "24h": "1d", "36h": "36h", "1d12h": "36h", "0s": "0s", "0d": "0s",
		"1h0m0s": "1h", "1h0m5s": "1h0m5s", "1.5h": "1h30m", "250ms": "250ms", "10m": "10m", "100m": "1h40m", "36500d": "36500d", "1us": "1µs", "1µs": "1µs",
	} {
		d, err := task.ParseDuration(in)
		if err != nil || d.String() != want {
			t.Errorf("%q = %v, %v; want %s", in, d, err, want)
		}
	}
	for _, in := range []string{"", "90", "-1s", "+1s", "1", "d", "1w", "1d1d", "1s1d", "s", "1 s", " 1s", "36501d", "36500d1ns", "999999999999d",
		"9999999999999h", "1e3s", ".5s", "∞"} {
		if d, err := task.ParseDuration(in); err == nil {
			t.Errorf("%q = %v, want an error", in, d)
		}
	}
	for range 10000 {
		d := task.Duration(rand.Int64N(int64(task.MaxDuration) + 1))
		text, _ := d.MarshalText()
		var back task.Duration
		if err := back.UnmarshalText(text); err != nil || back != d {
			t.Fatalf("%d is written %s and read as %d, %v", d, text, back, err)
		}
	}
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"90s", "1d12h", "1.5h", "36500d", "1µs"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := task.ParseDuration(s)
		if err != nil {
			return
		}
		if d < 0 || d > task.MaxDuration {
			t.Errorf("%q = %d, out of bounds", s, d)
		}
		if back, err := task.ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%q = %d, written %s, read as %d, %v", s, d, d, back, err)
		}
	})
}

// TestEnvTakesScalars: the text of a scalar counts, as people write it.
func TestEnvTakesScalars(t *testing.T) {
	var out task.WriteEnvFile
	in := "path: /etc/a\nenv: {A: 9100, B: \"9100\", C: 1.50, D: yes, E: true, F: 2026-01-01, G: 0x10, H: \"\", I: 1_000, J: ~a}\n"
	if err := strict.Decode("f", []byte(in), &out); err != nil {
		t.Fatal(err)
	}
	want := task.Env{"A": "9100", "B": "9100", "C": "1.50", "D": "yes", "E": "true", "F": "2026-01-01", "G": "0x10", "H": "", "I": "1_000", "J": "~a"}
	if !reflect.DeepEqual(out.Env, want) {
		t.Errorf("got %q, want %q", out.Env, want)
	}
}
