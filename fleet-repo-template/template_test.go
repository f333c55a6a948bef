package template_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	template "github.com/gpuaas/node-agent/fleet-repo-template"
	v1 "github.com/gpuaas/node-agent/schema/v1"
)

func TestFiles(t *testing.T) {
	for _, tc := range []struct {
		name string
		opts template.Options
		want []string // in fleet.yaml or the package
	}{
		{"defaults", template.Options{}, []string{"name: example\n", "host: registry.example.com\n"}},
		{"everything", template.Options{
			Name: "gpu-west", Environment: "production", Registry: "ghcr.io/acme/fleet", Etc: "/srv/etc", InstallRoot: "/srv/packages",
			User: true, SignerVersion: "v1.2.3",
		}, []string{
			"name: gpu-west\n", "environment: production\n", "host: ghcr.io\n", "ref: ghcr.io/acme/fleet/node-exporter\n",
			"etc: /srv/etc\n", "installRoot: /srv/packages\n", "dynamicUser: false\n",
		}},
		{"registry of this machine", template.Options{Registry: "127.0.0.1:5000"}, []string{
			"host: 127.0.0.1:5000\n    plainHTTP: true\n", "ref: 127.0.0.1:5000/gpuaas/node-exporter\n",
		}},
		{"names that YAML would take for something else", template.Options{Name: "123", Environment: "true"}, []string{
			"name: \"123\"\n", "environment: \"true\"\n",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files, err := template.Files(tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			both := string(files["fleet.yaml"]) + string(files["packages/node-exporter.yaml"])
			for _, want := range tc.want {
				if !strings.Contains(both, want) {
					t.Errorf("%q is missing in\n%s", want, both)
				}
			}
			for name, data := range files {
				if tc.opts.SignerVersion != "" && strings.Contains(string(data), "GPUAAS_SIGNER_VERSION: latest") {
					t.Errorf("%s installs another version of the signer", name)
				}
			}
			if _, err := v1.DecodeFleet("fleet.yaml", files["fleet.yaml"]); err != nil {
				t.Error(err)
			}
			if _, err := v1.DecodePackage("packages/node-exporter.yaml", files["packages/node-exporter.yaml"]); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFilesRefuses(t *testing.T) {
	for _, opts := range []template.Options{
		{Name: "Not a label"}, {Environment: "x y"}, {Registry: "https://x"}, {Registry: "nohost/x"}, {Etc: "relative"}, {InstallRoot: "/a/../b"},
	} {
		if _, err := template.Files(opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
}

// TestEditorSettings: the schemas that the editor is told of are there, and
// accept the template's own files.
func TestEditorSettings(t *testing.T) {
	files, err := template.Files(template.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var settings struct {
		Schemas map[string]string `json:"yaml.schemas"`
	}
	if err := json.Unmarshal(files[".vscode/settings.json"], &settings); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for schema, glob := range settings.Schemas {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(files[schema])))
		if err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource(schema, doc); err != nil {
			t.Fatal(err)
		}
		s, err := c.Compile(schema)
		if err != nil {
			t.Fatal(err)
		}
		for name, data := range files {
			if ok, err := filepath.Match(strings.Replace(strings.TrimPrefix(glob, "/"), "**/", "", 1), name); err != nil || !ok {
				continue
			}
			var v any
			if err := yaml.Unmarshal(data, &v); err != nil {
				t.Fatal(err)
			}
			if err := s.Validate(v); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			checked++
		}
	}
	if checked < 5 {
		t.Errorf("only %d files were checked", checked)
	}
}

// TestPipelinesAreYAML: a slip in them shows only after a merge.
func TestPipelinesAreYAML(t *testing.T) {
	for _, name := range []string{".github/workflows/validate.yml", ".github/workflows/publish.yml", ".github/workflows/refresh.yml", ".gitlab-ci.yml"} {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := yaml.Unmarshal(data, &v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
