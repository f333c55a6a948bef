package render_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
	"github.com/gpuaas/node-agent/signer/internal/render"
)

const (
	head   = "apiVersion: fleet.gpuaas.dev/v1\n"
	digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

func pkg(name string) string {
	return head + "kind: Package\nname: " + name + "\nref: registry.example.com/" + name + "\ndigest: " + digest + "\n"
}

// files is a fleet in which every rule of precedence has something to decide.
func files() map[string]string {
	return map[string]string{
		"fleet.yaml": head + `kind: Fleet
name: test
environment: dev
registries: [{host: registry.example.com}]
values: {etc: /etc/gpuaas, port: 9100, from: fleet, debug: true}
`,
		"packages/exporter.yaml": pkg("exporter"),
		"packages/unused.yaml":   pkg("unused"),
		"packages/own.yaml":      pkg("own"),
		"profiles/a-base.yaml": head + `kind: Profile
name: a-base
values: {from: a-base}
tasks:
  - id: env
    type: runtime.write_env_file
    with:
      path: ${values.etc}/node.env
      env: {NODE: "${node.id}", FROM: "${values.from}", DEBUG: "${values.debug}", KEEP: "$${HOME}$x"}
`,
		"profiles/b-exporter.yaml": head + `kind: Profile
name: b-exporter
selector: {matchLabels: {metrics: "yes"}}
values: {from: b-exporter}
packages: [exporter]
tasks:
  - id: unit
    type: runtime.install_service_unit
    with:
      unit: gpuaas-exporter.service
      content: |
        [Service]
        ExecStart=${packages.exporter.path}/bin/exporter --port=${values.port} $${OPTS}
  - id: service
    type: runtime.service_control
    with:
      unit: gpuaas-exporter.service
      state: running
      enabled: ${values.debug}
      restartOn: [package/exporter, unit, env]
      health: {http: {url: "http://127.0.0.1:${values.port}/"}}
`,
		"nodes/plain.yaml":   head + "kind: Node\nid: plain\n",
		"nodes/metrics.yaml": head + "kind: Node\nid: metrics\nlabels: {metrics: \"yes\"}\n",
		"nodes/own.yaml": head + `kind: Node
id: own
labels: {metrics: "yes"}
packages: [own]
values: {from: own, port: "9200"}
tasks:
  - id: env
    type: runtime.write_config_file
    with: {path: "${packages.own.path}.conf", content: "${values.from}"}
`,
	}
}

func load(tb testing.TB, files map[string]string) *fleet.Fleet {
	tb.Helper()
	fsys := fstest.MapFS{}
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	f, err := fleet.Load(fsys)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestRender(t *testing.T) {
	out, err := render.Render(load(t, files()))
	if err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]string{
		"plain": head + `kind: NodeManifest
node: plain
tasks:
  - id: env
    type: runtime.write_env_file
    with:
      path: /etc/gpuaas/node.env
      env:
        DEBUG: "true"
        FROM: a-base
        KEEP: "${HOME}$x"
        NODE: plain
`,
		"metrics": head + `kind: NodeManifest
node: metrics
packages:
  - name: exporter
    ref: registry.example.com/exporter
    digest: ` + digest + `
tasks:
  - id: env
    type: runtime.write_env_file
    with:
      path: /etc/gpuaas/node.env
      env:
        DEBUG: "true"
        FROM: b-exporter
        KEEP: "${HOME}$x"
        NODE: metrics
  - id: unit
    type: runtime.install_service_unit
    with:
      unit: gpuaas-exporter.service
      content: |
        [Service]
        ExecStart=/opt/gpuaas/packages/exporter/current/bin/exporter --port=9100 ${OPTS}
  - id: service
    type: runtime.service_control
    with:
      unit: gpuaas-exporter.service
      state: running
      enabled: true
      restartOn:
        - package/exporter
        - unit
        - env
      health:
        http:
          url: http://127.0.0.1:9100/
`,
	} {
		got, err := render.Content(out[node])
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("%s: got\n%s\nwant\n%s", node, got, want)
		}
	}
	own := out["own"]
	if spec := own.Tasks[0].With.(*task.WriteConfigFile); spec.Path != "/opt/gpuaas/packages/own/current.conf" || spec.Content != "own" {
		t.Errorf("the node's own task is %+v", spec)
	}
	if names := []string{own.Packages[0].Name, own.Packages[1].Name}; !slices.Equal(names, []string{"exporter", "own"}) {
		t.Errorf("packages are %v", names)
	}
}

func TestRenderErrors(t *testing.T) {
	for _, tc := range []struct {
		name     string
		old, new string // in profiles/b-exporter.yaml
		want     []string
	}{
		{"missing value", "--port=${values.port}", "--port=${values.prot}", []string{
			`profiles/b-exporter.yaml:14:65: tasks[0].with.content: no value "prot"; fleet, profiles and node have debug, etc, from, port (for node metrics and 1 more)`,
		}},
		{"package of another node", "${packages.exporter.path}", "${packages.unused.path}", []string{
			`profiles/b-exporter.yaml:14:19: tasks[0].with.content: package "unused" is not one of the node's, which are exporter, own; add it to packages of the profile or the node (for node own)`,
			`profiles/b-exporter.yaml:14:19: tasks[0].with.content: package "unused" is not one of the node's, which are exporter; add it to packages of the profile or the node (for node metrics)`,
		}},
		{"unknown name", "${values.debug}", "${env.HOME}", []string{
			`profiles/b-exporter.yaml:20:16: tasks[1].with.enabled: found ${env.HOME}; allowed are ${values.<name>}, ${node.id} and ${packages.<name>.path}; write $${ for a ${ that should stay`,
		}},
		{"unknown part of a package", "${packages.exporter.path}", "${packages.exporter.digest}", []string{
			`profiles/b-exporter.yaml:14:19: tasks[0].with.content: found ${packages.exporter.digest}; of a package there is ${packages.<name>.path} only`,
		}},
		{"not closed", "${values.debug}", "${values.debug", []string{
			`profiles/b-exporter.yaml:20:16: tasks[1].with.enabled: found "${values.debug" without its }; write $${ for a ${ that should stay`,
		}},
		{"empty", "${values.debug}", "${}", []string{
			`profiles/b-exporter.yaml:20:16: tasks[1].with.enabled: found ${}; allowed are`,
		}},
		{"wrong type", "${values.debug}", `"${values.debug}"`, []string{
			`profiles/b-exporter.yaml:20:16: tasks[1].with.enabled: found string "true"`,
		}},
		{"wrong value", "127.0.0.1:${values.port}", "127.0.0.1:${values.from}", []string{
			`profiles/b-exporter.yaml:22:28: tasks[1].with.health.http.url: found "http://127.0.0.1:b-exporter/"`,
			`profiles/b-exporter.yaml:22:28: tasks[1].with.health.http.url: found "http://127.0.0.1:own/"`,
		}},
		{"unknown restartOn", "unit, env]", `unit, "${values.from}"]`, []string{
			`profiles/b-exporter.yaml:21:43: tasks[1].with.restartOn[2]: no task "b-exporter" in this manifest (for node metrics)`,
			`profiles/b-exporter.yaml:21:43: tasks[1].with.restartOn[2]: no task "own" in this manifest (for node own)`,
		}},
		{"two tasks, one file", "  - id: service\n", "  - id: env2\n    type: runtime.write_env_file\n    with: {path: \"${values.etc}/node.env\", env: {A: b}}\n  - id: service\n", []string{
			`profiles/b-exporter.yaml:17:11: tasks[1].with: file//etc/gpuaas/node.env is declared by task env of profiles/a-base.yaml already (for node metrics)`,
		}},
		{"registry of a task", "  - id: service\n", "  - id: early\n    type: artifact.fetch\n    with: {name: early, ref: ghcr.io/early, digest: \"" + digest + "\"}\n  - id: service\n", []string{
			`profiles/b-exporter.yaml:17:30: tasks[1].with.ref: registry "ghcr.io" is not one that fleet.yaml lists (for node metrics and 1 more)`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := files()
			changed := strings.Replace(fs["profiles/b-exporter.yaml"], tc.old, tc.new, 1)
			if changed == fs["profiles/b-exporter.yaml"] {
				t.Fatal("nothing to replace")
			}
			fs["profiles/b-exporter.yaml"] = changed
			_, err := render.Render(load(t, fs))
			var errs strict.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("error is %v", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(tc.want, "\n"))
			}
			for i, want := range tc.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
		})
	}
}

// TestRenderProfileOfNoNode: a placeholder that can never mean anything is found
// before a node gets the profile.
func TestRenderProfileOfNoNode(t *testing.T) {
	fs := files()
	fs["profiles/c-none.yaml"] = head + "kind: Profile\nname: c-none\nselector: {matchLabels: {x: y}}\ntasks:\n" +
		"  - id: f\n    type: runtime.write_config_file\n    with: {path: /etc/x, content: \"${nodes.id}\"}\n"
	_, err := render.Render(load(t, fs))
	if err == nil || !strings.HasPrefix(err.Error(), "profiles/c-none.yaml:8:35: tasks[0].with.content: found ${nodes.id}") {
		t.Errorf("error is %v", err)
	}
}

// TestRenderDoesNotDependOnOrder: neither the order of nodes nor of lists in memory counts.
func TestRenderDoesNotDependOnOrder(t *testing.T) {
	fs := files()
	for i := range 30 {
		labels := []string{"", "labels: {metrics: \"yes\"}\n"}[i%2]
		fs[fmt.Sprintf("nodes/n%02d.yaml", i)] = head + fmt.Sprintf("kind: Node\nid: n%02d\n%svalues: {port: %d}\n", i, labels, 9000+i%3)
	}
	f := load(t, fs)
	first, err := render.Render(f)
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 0))
		shuffled := *f
		shuffled.Nodes = slices.Clone(f.Nodes)
		rng.Shuffle(len(shuffled.Nodes), func(i, j int) {
			shuffled.Nodes[i], shuffled.Nodes[j] = shuffled.Nodes[j], shuffled.Nodes[i]
		})
		again, err := render.Render(&shuffled)
		if err != nil {
			t.Fatal(err)
		}
		for id := range first {
			a, errA := render.Content(first[id])
			b, errB := render.Content(again[id])
			if errA != nil || errB != nil || !bytes.Equal(a, b) {
				t.Fatalf("%s differs: %v %v\n%s\n%s", id, errA, errB, a, b)
			}
		}
	}
}

func TestStamp(t *testing.T) {
	out, err := render.Render(load(t, files()))
	if err != nil {
		t.Fatal(err)
	}
	m := out["metrics"]
	src := v1.ManifestSource{Repo: "https://git.example.com/fleet.git", Commit: strings.Repeat("a", 40)}
	first, changed, err := render.Stamp(nil, m, src, 7)
	if err != nil || !changed {
		t.Fatal(changed, err)
	}
	decoded, err := v1.DecodeManifest("m", first)
	if err != nil || decoded.Generation != 7 || decoded.Source != src {
		t.Fatalf("stamped %+v: %v", decoded, err)
	}
	content, err := render.Content(m)
	if err != nil || !bytes.Equal(render.Unstamp(first), content) {
		t.Errorf("unstamped differs from content: %v\n%s", err, render.Unstamp(first))
	}
	other := v1.ManifestSource{Repo: src.Repo, Commit: strings.Repeat("b", 40)}
	again, changed, err := render.Stamp(first, m, other, 8)
	if err != nil || changed || !bytes.Equal(first, again) {
		t.Errorf("the same content was stamped anew: %v %v", changed, err)
	}
	// As another version might have written it.
	loose := []byte("# comment\n" + strings.Replace(string(first), "state: running", `"state": "running"`, 1))
	again, changed, err = render.Stamp(loose, m, other, 8)
	if err != nil || changed || !bytes.Equal(loose, again) {
		t.Errorf("the same content in another form was stamped anew: %v %v", changed, err)
	}
	for name, prev := range map[string][]byte{"other content": bytes.ReplaceAll(first, []byte("9100"), []byte("9101")), "garbage": []byte("\x00")} {
		again, changed, err = render.Stamp(prev, m, other, 8)
		if err != nil || !changed {
			t.Fatal(name, changed, err)
		}
		decoded, err := v1.DecodeManifest("m", again)
		if err != nil || decoded.Generation != 8 || decoded.Source != other {
			t.Errorf("%s: stamped %+v: %v", name, decoded, err)
		}
	}
}

// bench is a fleet of n nodes: a third with a value of its own, all with their id in a file.
func bench(b *testing.B, n int) *fleet.Fleet {
	f := load(b, files())
	f.Nodes = nil
	for i := range n {
		node := v1.Node{ID: fmt.Sprintf("gpu-%06d", i), Labels: map[string]string{"metrics": "yes"}}
		if i%3 == 0 {
			node.Values = v1.Values{"port": {Text: fmt.Sprint(9000 + i%100), Tag: "!!int"}}
		}
		f.Nodes = append(f.Nodes, fleet.Node{File: "nodes/" + node.ID + ".yaml", Node: node})
	}
	return f
}

func BenchmarkRender100000(b *testing.B) {
	f := bench(b, 100_000)
	for b.Loop() {
		if _, err := render.Render(f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStampUnchanged(b *testing.B) {
	out, err := render.Render(bench(b, 1))
	if err != nil {
		b.Fatal(err)
	}
	m := out["gpu-000000"]
	prev, _, err := render.Stamp(nil, m, v1.ManifestSource{Repo: "https://git.example.com/fleet.git", Commit: strings.Repeat("a", 40)}, 1)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, changed, err := render.Stamp(prev, m, v1.ManifestSource{}, 2); changed || err != nil {
			b.Fatal(changed, err)
		}
	}
}

func FuzzInterpolate(f *testing.F) {
	for _, s := range []string{"${values.from}", "$${x}", "$$${values.etc}", "${", "${}", "a$b", "${packages.exporter.path}/x", "${node.id"} {
		f.Add(s)
	}
	base := files()
	f.Fuzz(func(t *testing.T, s string) {
		fs := fstest.MapFS{}
		for name, content := range base {
			fs[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
		}
		quoted, err := strict.Encode(struct {
			V string `yaml:"v"`
		}{s})
		if err != nil {
			return
		}
		lines := strings.ReplaceAll(strings.TrimSuffix(string(quoted), "\n"), "\n", "\n      ")
		fs["nodes/f.yaml"] = &fstest.MapFile{Mode: 0o644, Data: []byte(head + "kind: Node\nid: f\nlabels: {metrics: \"yes\"}\ntasks:\n  - id: f\n" +
			"    type: runtime.write_config_file\n    with:\n      path: /etc/f\n      " + strings.Replace(lines, "v:", "content:", 1) + "\n")}
		loaded, err := fleet.Load(fs)
		if err != nil {
			return
		}
		out, err := render.Render(loaded)
		if err != nil {
			if !strings.Contains(s, "${") {
				t.Errorf("%q has no placeholder and fails: %v", s, err)
			}
			return
		}
		got := out["f"].Tasks[1].With
		if out["f"].Tasks[len(out["f"].Tasks)-1].ID == "f" {
			got = out["f"].Tasks[len(out["f"].Tasks)-1].With
		}
		if c := got.(*task.WriteConfigFile).Content; !strings.Contains(s, "$") && c != s {
			t.Errorf("%q became %q", s, c)
		}
	})
}
