package v1_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

// maker makes random valid documents.
type maker struct{ *rand.Rand }

func (m maker) coin() bool { return m.IntN(2) == 0 }

// text returns any text that a file may hold.
func (m maker) text() string {
	alphabet := []rune("abcXYZ 019_-:#'\"\\$`{}[]|>!&*%@,?~\n\n\t\r=/.\u0001\u007f\u0085\u2028\ufeffäö漢\U0001f600")
	var b strings.Builder
	for range 1 + m.IntN(30) {
		b.WriteRune(alphabet[m.IntN(len(alphabet))])
	}
	return b.String()
}

func (m maker) digest() string {
	return fmt.Sprintf("sha256:%016x%016x%016x%016x", m.Uint64(), m.Uint64(), m.Uint64(), m.Uint64())
}

func (m maker) maybe(s string) string {
	if m.coin() {
		return s
	}
	return ""
}

// manifest returns a manifest that DecodeManifest accepts.
func (m maker) manifest() v1.NodeManifest {
	out := v1.NodeManifest{
		TypeMeta: v1.Meta(v1.KindNodeManifest), Node: fmt.Sprintf("node-%d", m.IntN(1000)), Generation: 1 + m.Int64N(1<<40),
		Source: v1.ManifestSource{Repo: "https://git.example.com/fleet.git", Commit: fmt.Sprintf("%020x%020x", m.Uint64(), m.Uint64())},
	}
	var restartOn []string
	for i := range m.IntN(4) {
		name := fmt.Sprintf("pkg-%d", i)
		out.Packages = append(out.Packages, v1.ManifestPackage{Name: name, Ref: "registry.example.com:5000/a/" + name, Digest: m.digest()})
		restartOn = append(restartOn, "package/"+name)
	}
	for i := range m.IntN(8) {
		id := fmt.Sprintf("task-%d", i)
		spec := m.spec(i, out.Packages, restartOn)
		out.Tasks = append(out.Tasks, v1.Task{ID: id, Type: spec.Type(), With: spec})
		switch spec.(type) {
		case *task.WriteEnvFile, *task.WriteConfigFile, *task.InstallServiceUnit:
			restartOn = append(restartOn, id)
		}
	}
	return out
}

func (m maker) spec(i int, packages []v1.ManifestPackage, restartOn []string) task.Spec {
	switch m.IntN(5) {
	case 0:
		return &task.ArtifactFetch{Name: fmt.Sprintf("fetched-%d", i), Ref: "localhost/x", Digest: m.digest()}
	case 1:
		env := task.Env{}
		for j := range m.IntN(5) {
			env[fmt.Sprintf("NAME_%d", j)] = m.maybe(m.text())
		}
		return &task.WriteEnvFile{Path: fmt.Sprintf("/etc/gpuaas/%d.env", i), Mode: m.maybe("0600"), Owner: m.maybe("root"), Group: m.maybe("0"), Adopt: m.coin(), Env: env}
	case 2:
		return &task.WriteConfigFile{Path: fmt.Sprintf("/etc/gpuaas/%d.conf", i), Mode: m.maybe("0444"), Content: m.text()}
	case 3:
		unit := &task.InstallServiceUnit{Unit: fmt.Sprintf("gpuaas-%d.timer", i), Adopt: m.coin(), Content: m.text()}
		if len(packages) > 0 && m.coin() {
			unit.Content, unit.From = "", &task.PackageFile{Package: packages[0].Name, File: "systemd/x.timer"}
		}
		return unit
	}
	s := &task.ServiceControl{Unit: fmt.Sprintf("gpuaas-%d.service", i), Action: task.Restart}
	if m.coin() {
		on := m.coin()
		s.Action, s.State, s.Enabled = "", task.Running, &on
		s.RestartOn = append(s.RestartOn, restartOn...)
	}
	if m.coin() {
		s.Health = &task.HealthCheck{Timeout: task.Duration(1+m.IntN(60)) * task.Duration(time.Minute)}
		if m.coin() {
			s.Health.HTTP = &task.HTTPCheck{URL: "http://127.0.0.1:1/a?b=c"}
			s.Health.TCP = &task.TCPCheck{Address: "localhost:65535"}
		}
	}
	return s
}

// TestManifestsAreReadBack: decode after encode is identity, and the bytes are
// the same every time.
func TestManifestsAreReadBack(t *testing.T) {
	for seed := range uint64(2000) {
		in := maker{rand.New(rand.NewPCG(seed, 1))}.manifest()
		data, err := in.Encode()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		out, err := v1.DecodeManifest("m", data)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, data)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("seed %d: got %+v\nwant %+v\nfrom\n%s", seed, out, in, data)
		}
		again, err := out.Encode()
		if err != nil || !bytes.Equal(data, again) {
			t.Fatalf("seed %d: the second encoding differs: %v", seed, err)
		}
		resources, err := out.Resources()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		refs := map[string]bool{}
		for _, r := range resources {
			if refs[r.Ref()] {
				t.Fatalf("seed %d: two resources have the ref %s", seed, r.Ref())
			}
			refs[r.Ref()] = true
		}
		for _, r := range resources {
			if s, ok := r.(task.Service); ok {
				for _, ref := range s.RestartOn {
					if !refs[ref] {
						t.Fatalf("seed %d: restartOn has %s, which is no ref", seed, ref)
					}
				}
			}
		}
	}
}

func (m maker) status() v1.NodeStatus {
	pick := func(n int) int { return m.IntN(n) }
	when := func() time.Time { return time.Unix(m.Int64N(1<<32), m.Int64N(1e9)).UTC() }
	s := v1.NodeStatus{
		TypeMeta: v1.Meta(v1.KindNodeStatus), Node: "n", AgentVersion: "v" + m.text(), Updated: when(),
		SourceCommit: m.maybe(m.text()), DesiredGeneration: m.Int64N(100), Phase: v1.Phases()[pick(9)], Repairs: m.Int64N(9),
	}
	for _, kind := range v1.ConditionTypes() {
		s.Conditions = append(s.Conditions, v1.Condition{Type: kind, Status: v1.ConditionStatuses()[pick(3)],
			Reason: v1.Reasons()[pick(len(v1.Reasons()))], Message: m.maybe(m.text()), Since: when()})
	}
	for i := range m.IntN(3) {
		s.Packages = append(s.Packages, v1.ElementStatus{Name: fmt.Sprint("p", i), State: v1.ElementStates()[pick(4)], Digest: m.digest()})
		s.Tasks = append(s.Tasks, v1.ElementStatus{Name: m.text(), Type: "t", State: v1.ElementStates()[pick(4)], Message: m.maybe(m.text())})
	}
	if m.coin() {
		s.Trust = &v1.TrustStatus{RootVersion: 1}
		if m.coin() {
			s.Trust.Versions = map[string]int64{"root": 1, m.text(): 2}
			s.Trust.Expires = map[string]time.Time{"root": when()}
			s.Trust.KeyIDs = map[string][]string{"root": {m.text()}}
		}
	}
	if m.coin() {
		s.LastError = &v1.StatusError{Phase: "apply", Component: "systemd", Element: m.maybe(m.text()), Category: v1.ReasonJobFailed, Message: m.text(), Time: when()}
	}
	return s
}

func TestStatusesAreReadBack(t *testing.T) {
	for seed := range uint64(1000) {
		in := maker{rand.New(rand.NewPCG(seed, 2))}.status()
		for name, encode := range map[string]func() ([]byte, error){"YAML": in.EncodeYAML, "JSON": in.EncodeJSON} {
			data, err := encode()
			if err != nil {
				t.Fatalf("seed %d, %s: %v", seed, name, err)
			}
			out, err := v1.DecodeStatus("s", data)
			if err != nil {
				t.Fatalf("seed %d, %s: %v\n%s", seed, name, err, data)
			}
			if !reflect.DeepEqual(in, out) {
				t.Fatalf("seed %d, %s: got %+v\nwant %+v\nfrom\n%s", seed, name, out, in, data)
			}
			if name == "JSON" {
				var plain v1.NodeStatus
				if err := json.Unmarshal(data, &plain); err != nil || !reflect.DeepEqual(in, plain) {
					t.Fatalf("seed %d: encoding/json reads %+v, %v", seed, plain, err)
				}
			}
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	f.Add([]byte(manifestText))
	for _, name := range []string{"valid/manifest.yaml", "valid/manifest-empty.json", "invalid/manifest-names.yaml", "invalid/manifest-service.yaml",
		"invalid/manifest-env.yaml", "invalid/manifest-unit.yaml", "invalid/manifest-shape.yaml", "invalid/version-newer.yaml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := v1.DecodeManifest("m", data)
		if err != nil {
			var es strict.Errors
			if !errors.As(err, &es) || len(es) == 0 {
				t.Fatalf("error is %T %v", err, err)
			}
			lines := strings.Split(string(data), "\n")
			for _, e := range es {
				if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
					t.Fatalf("%v is outside of the file", e)
				}
			}
			return
		}
		if _, err := m.Resources(); err != nil {
			t.Fatalf("a decoded manifest has no resources: %v", err)
		}
		encoded, err := m.Encode()
		if err != nil {
			t.Fatalf("a decoded manifest can't be encoded: %v", err)
		}
		back, err := v1.DecodeManifest("m", encoded)
		if err != nil {
			t.Fatalf("an encoded manifest can't be decoded: %v\n%s", err, encoded)
		}
		again, err := back.Encode()
		if err != nil || !bytes.Equal(encoded, again) {
			t.Fatalf("the second encoding differs: %v\n%s\n%s", err, encoded, again)
		}
	})
}

func BenchmarkManifest(b *testing.B) {
	m, err := v1.DecodeManifest("m", []byte(manifestText))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := v1.DecodeManifest("m", []byte(manifestText)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
