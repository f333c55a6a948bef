package fleet_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gpuaas/node-agent/schema/strict"
	"github.com/gpuaas/node-agent/signer/internal/fleet"
)

const (
	head   = "apiVersion: fleet.gpuaas.dev/v1\n"
	digest = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

func good() map[string]string {
	return map[string]string{
		"fleet.yaml": head + `kind: Fleet
name: test
environment: dev
registries:
  - host: registry.example.com
`,
		"packages/exporter.yaml": head + `kind: Package
name: exporter
ref: registry.example.com/gpuaas/exporter
digest: ` + digest + "\n",
		"profiles/metrics.yaml": head + `kind: Profile
name: metrics
packages: [exporter]
`,
		"nodes/b.yaml":        head + "kind: Node\nid: b\n",
		"nodes/rack-1/a.yaml": head + "kind: Node\nid: a\n",
		"nodes/.gitkeep":      "",
		"README.md":           "other files at the root are nobody's business",
		"trust/root.json":     "{}",
	}
}

func load(files map[string]string) (*fleet.Fleet, error) {
	fsys := fstest.MapFS{}
	for name, content := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return fleet.Load(fsys)
}

func TestLoad(t *testing.T) {
	f, err := load(good())
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "test" || f.InstallRoot != "/opt/gpuaas/packages" || f.Signed.Branch != "signed" {
		t.Errorf("fleet is %+v", f.Fleet)
	}
	if len(f.Nodes) != 2 || f.Nodes[0].ID != "a" || f.Nodes[0].File != "nodes/rack-1/a.yaml" {
		t.Errorf("nodes are %+v", f.Nodes)
	}
	if n, ok := f.Node("b"); !ok || n.File != "nodes/b.yaml" {
		t.Errorf("node b is %+v", n)
	}
	if p, ok := f.Package("exporter"); !ok || p.Digest != digest {
		t.Errorf("package is %+v", p)
	}
	if _, ok := f.Package("other"); ok {
		t.Error("found a package that isn't there")
	}
}

func TestLoadErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  map[string]string // "" removes
		want []string          // exactly these lines
	}{
		{"no fleet.yaml", map[string]string{"fleet.yaml": ""}, []string{
			"fleet.yaml:1:1: missing; a fleet repo begins with this file: make one with gpuaas-signer init, or use -C to name the repo's folder",
		}},
		{"all errors of all files", map[string]string{
			"fleet.yaml":             head + "kind: Fleet\nname: Test\nenvironment: dev\nregistries: []\n",
			"packages/exporter.yaml": head + "kind: Package\nname: exporter\nref: x\ndigest: latest\n",
			"nodes/b.yaml":           head + "kind: Node\nid: b\ncolour: red\n",
		}, []string{
			"fleet.yaml:3:7: name: ", "fleet.yaml:5:13: registries: ",
			"nodes/b.yaml:4:1: colour: unknown field", "packages/exporter.yaml:4:6: ref: ", "packages/exporter.yaml:5:9: digest: ",
		}},
		{"unknown files", map[string]string{
			"packages/exporter.yml": "x", "profiles/sub/a.yaml": "x", "nodes/README.md": "x",
		}, []string{
			"nodes/README.md:1:1: unknown file; nodes/ holds files that end in .yaml",
			"packages/exporter.yml:1:1: unknown file; packages/ holds files that end in .yaml",
			"profiles/sub:1:1: unknown folder; profiles/ holds files only",
		}},
		{"file names", map[string]string{
			"nodes/b.yaml": "", "nodes/c.yaml": head + "kind: Node\nid: b\n",
			"profiles/metrics.yaml": "", "profiles/other.yaml": head + "kind: Profile\nname: metrics\n",
		}, []string{
			`nodes/c.yaml:3:5: id: found "b"; the file of that name must be called b.yaml`,
			`profiles/other.yaml:3:7: name: found "metrics"; the file of that name must be called metrics.yaml`,
		}},
		{"duplicate node", map[string]string{"nodes/rack-2/a.yaml": head + "kind: Node\nid: a\n"}, []string{
			`nodes/rack-2/a.yaml:3:5: id: node "a" is declared by nodes/rack-1/a.yaml already`,
		}},
		{"absent package", map[string]string{
			"profiles/metrics.yaml": head + "kind: Profile\nname: metrics\npackages: [exporter, exportr]\n",
			"nodes/b.yaml":          head + "kind: Node\nid: b\npackages:\n  - nothing\n",
		}, []string{
			`nodes/b.yaml:5:5: packages[0]: no package "nothing"; packages/ has exporter`,
			`profiles/metrics.yaml:4:22: packages[1]: no package "exportr"; packages/ has exporter`,
		}},
		{"a package that can't be decoded isn't absent too", map[string]string{
			"packages/exporter.yaml": head + "kind: Package\nname: exporter\nref: registry.example.com/x\ndigest: latest\n",
		}, []string{"packages/exporter.yaml:5:9: digest: "}},
		{"unknown registry", map[string]string{
			"packages/exporter.yaml": head + "kind: Package\nname: exporter\nref: ghcr.io/gpuaas/exporter\ndigest: " + digest + "\n",
		}, []string{
			`packages/exporter.yaml:4:6: ref: registry "ghcr.io" is not one of the fleet's; fleet.yaml lists registry.example.com`,
		}},
		{"unknown team", map[string]string{"nodes/b.yaml": head + "kind: Node\nid: b\nteam: storage\n"}, []string{
			`nodes/b.yaml:4:7: team: no team "storage"; fleet.yaml lists fleet`,
		}},
		{"two documents, duplicate key", map[string]string{
			"nodes/b.yaml":        head + "kind: Node\nid: b\nid: b\n",
			"nodes/rack-1/a.yaml": head + "kind: Node\nid: a\n---\n" + head,
		}, []string{"nodes/b.yaml:4:1: ", "nodes/rack-1/a.yaml:4:1: a second document begins here"}},
		{"too long", map[string]string{"nodes/b.yaml": strings.Repeat("#", strict.MaxSize+1)}, []string{"nodes/b.yaml:1:1: the document has"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := good()
			for name, content := range tc.set {
				if files[name] = content; content == "" {
					delete(files, name)
				}
			}
			_, err := load(files)
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

func TestLoadRefusesSymlinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, good())
	if err := os.Symlink("b.yaml", filepath.Join(dir, "nodes", "link.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := fleet.Load(os.DirFS(dir))
	if err == nil || !strings.Contains(err.Error(), "nodes/link.yaml:1:1: not a regular file") {
		t.Errorf("error is %v", err)
	}
}

func write(tb testing.TB, dir string, files map[string]string) {
	tb.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

func BenchmarkLoad100000(b *testing.B) {
	dir := b.TempDir()
	files := good()
	for i := range 100_000 {
		id := fmt.Sprintf("gpu-%06d", i)
		files[fmt.Sprintf("nodes/rack-%03d/%s.yaml", i/100, id)] = head + "kind: Node\nid: " + id +
			"\nlabels: {accelerator: gpu, rack: \"17\"}\nvalues: {port: 9100}\n"
	}
	write(b, dir, files)
	for b.Loop() {
		if _, err := fleet.Load(os.DirFS(dir)); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzLoadNode(f *testing.F) {
	f.Add("kind: Node\nid: b\n")
	f.Add("kind: Node\nid: b\ntasks: [{id: x, type: runtime.write_config_file, with: {path: /etc/x, content: \"${values.a}\"}}]\n")
	f.Fuzz(func(t *testing.T, text string) {
		files := good()
		files["nodes/b.yaml"] = head + text
		if _, err := load(files); err != nil {
			var errs strict.Errors
			if !errors.As(err, &errs) {
				t.Errorf("error has no positions: %v", err)
			}
		}
	})
}
