// Package template holds the files that a new fleet repo begins with. The folder
// is itself a valid fleet; Files puts the operator's own names in.
package template

import (
	"embed"
	"fmt"
	"io/fs"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/gpuaas/node-agent/schema/names"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/gpuaas/node-agent/schema/v1/jsonschema"
)

//go:embed fleet.yaml README.md packages profiles nodes CODEOWNERS
//go:embed .editorconfig .gitattributes .gitignore .gitlab-ci.yml .github .vscode
var files embed.FS

// SchemaFolder is where JSON Schemas are in a fleet repo.
const SchemaFolder = ".schema"

// Options are the names to put in. Those left empty stay as in the template.
type Options struct {
	Name, Environment string
	// Registry is "host[:port]" with an optional path below which packages are.
	Registry string
	// Etc and InstallRoot are folders on the nodes.
	Etc, InstallRoot string
	// User is for agents that run with --user: services don't get users of their own.
	User bool
	// SignerVersion is the version of gpuaas-signer that CI installs.
	SignerVersion string
}

// Files returns the files of a new fleet repo by their slash-separated paths.
func Files(o Options) (map[string][]byte, error) {
	edits, err := o.edits()
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	err = fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.ReadFile(p)
		out[p] = data
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the template: %w", err)
	}
	for _, e := range edits {
		if err := e.apply(out); err != nil {
			return nil, err
		}
	}
	for _, kind := range []string{v1.KindFleet, v1.KindPackage, v1.KindProfile, v1.KindNode} {
		schema, ok := jsonschema.ByKind(kind)
		if !ok {
			return nil, fmt.Errorf("cannot find the JSON Schema of %s", kind)
		}
		out[SchemaFolder+"/"+jsonschema.FileName(kind)] = schema
	}
	return out, nil
}

// An edit replaces text in some files; it must be in each of them.
type edit struct {
	old, new string
	files    []string
}

func (e edit) apply(out map[string][]byte) error {
	for _, f := range e.files {
		before := string(out[f])
		if !strings.Contains(before, e.old) {
			return fmt.Errorf("cannot find %q in %s of the template", e.old, f)
		}
		out[f] = []byte(strings.ReplaceAll(before, e.old, e.new))
	}
	return nil
}

func (o Options) edits() ([]edit, error) {
	var edits []edit
	add := func(old, new string, files ...string) { edits = append(edits, edit{old, new, files}) }
	if o.Name != "" {
		if err := names.Label(o.Name); err != nil {
			return nil, fmt.Errorf("the fleet's name: %w", err)
		}
		add("name: example", "name: "+scalar(o.Name), "fleet.yaml")
		add("# example: a fleet", "# "+o.Name+": a fleet", "README.md")
	}
	if o.Environment != "" {
		if err := names.Label(o.Environment); err != nil {
			return nil, fmt.Errorf("the environment: %w", err)
		}
		add("environment: staging", "environment: "+scalar(o.Environment), "fleet.yaml")
	}
	if o.Registry != "" {
		if err := names.Repository(o.Registry + "/x"); err != nil {
			return nil, fmt.Errorf("the registry: %w", err)
		}
		host, path, _ := strings.Cut(o.Registry, "/")
		if path == "" {
			path = "gpuaas"
		}
		entry := "  - host: " + host + "\n"
		if names.Loopback(host) {
			entry += "    plainHTTP: true\n"
		}
		add("  - host: registry.example.com\n", entry, "fleet.yaml")
		add("registry.example.com/gpuaas/", host+"/"+path+"/", "packages/node-exporter.yaml", "README.md")
	}
	if o.Etc != "" {
		if err := names.AbsolutePath(o.Etc); err != nil {
			return nil, fmt.Errorf("the folder for files: %w", err)
		}
		add("  etc: /etc/gpuaas\n", "  etc: "+o.Etc+"\n", "fleet.yaml")
	}
	if o.InstallRoot != "" {
		if err := names.AbsolutePath(o.InstallRoot); err != nil {
			return nil, fmt.Errorf("the folder for packages: %w", err)
		}
		add("\n# The weakest source", "\n# Where packages are on the nodes.\ninstallRoot: "+o.InstallRoot+"\n\n# The weakest source", "fleet.yaml")
	}
	if o.User {
		add("dynamicUser: true", "dynamicUser: false", "fleet.yaml")
	}
	if o.SignerVersion != "" {
		add("GPUAAS_SIGNER_VERSION: latest", "GPUAAS_SIGNER_VERSION: "+o.SignerVersion,
			".github/workflows/validate.yml", ".github/workflows/publish.yml", ".github/workflows/refresh.yml", ".gitlab-ci.yml")
	}
	return edits, nil
}

// scalar quotes a label that YAML would take for a number or a boolean.
func scalar(s string) string {
	n := yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if n.ShortTag() != "!!str" {
		return `"` + s + `"`
	}
	return s
}
