// Package arch holds the project to its own import rules (docs/architecture.md).
package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gpuaas/node-agent/"

type pkg struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p.Imports
	}
}

// adapters do things to the outside and know nothing of each other.
var adapters = []string{"source", "fetch", "store", "systemd", "observe", "apply", "health", "journal", "report"}

// pure decide, from values to values.
var pure = []string{
	"agent/internal/plan", "agent/internal/guard", "agent/internal/host",
	"schema/trust", "schema/task", "schema/v1", "schema/strict", "signer/internal/render",
}

// impure are what pure packages may not import.
var impure = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "io/ioutil", "syscall", "golang.org/x/sys/unix"}

func TestAdaptersDontKnowEachOther(t *testing.T) {
	all := packages(t)
	for _, a := range adapters {
		name := "agent/internal/" + a
		imports, ok := all[name]
		if !ok {
			t.Errorf("%s: no such package", name)
		}
		for _, i := range imports {
			local := strings.TrimPrefix(i, module)
			other := strings.TrimPrefix(local, "agent/internal/")
			if local != name && slices.Contains(adapters, other) {
				t.Errorf("%s imports %s: adapters meet only in loop and cli", name, local)
			}
			if local == "agent/internal/loop" || local == "agent/internal/cli" || local == "agent/internal/config" {
				t.Errorf("%s imports %s: imports flow cli -> loop -> adapters -> schema", name, local)
			}
		}
	}
}

func TestPurePackagesDoNothing(t *testing.T) {
	all := packages(t)
	for _, name := range pure {
		imports, ok := all[name]
		if !ok {
			t.Errorf("%s: no such package", name)
		}
		for _, i := range imports {
			if slices.Contains(impure, i) {
				t.Errorf("%s imports %s: it decides, and must not do", name, i)
			}
		}
	}
}

func TestSidesMeetInSchemaOnly(t *testing.T) {
	for name, imports := range packages(t) {
		for _, i := range imports {
			local := strings.TrimPrefix(i, module)
			switch {
			case strings.HasPrefix(name, "schema/") && (strings.HasPrefix(local, "agent/") || strings.HasPrefix(local, "signer/")):
				t.Errorf("%s imports %s: schema is below both sides", name, local)
			case strings.HasPrefix(name, "agent/") && strings.HasPrefix(local, "signer/"),
				strings.HasPrefix(name, "signer/") && strings.HasPrefix(local, "agent/"):
				t.Errorf("%s imports %s: agent and signer meet in schema only", name, local)
			case strings.HasPrefix(name, "internal/") && strings.HasPrefix(i, module) && !strings.HasPrefix(local, "internal/"):
				t.Errorf("%s imports %s: internal holds leaves", name, local)
			}
		}
	}
}

// libraries are imported by the packages that speak for them, and by no other.
var libraries = map[string][]string{
	"github.com/theupdateframework/go-tuf":     {"schema/trust", "signer/internal/sign"},
	"github.com/coreos/go-systemd":             {"agent/internal/systemd", "agent/internal/report"},
	"github.com/godbus/dbus":                   {"agent/internal/systemd"},
	"github.com/fsnotify/fsnotify":             {"agent/internal/observe"},
	"github.com/google/go-containerregistry":   {"agent/internal/fetch", "signer/internal/pack"},
	"github.com/prometheus/client_golang":      {"agent/internal/report"},
	"github.com/klauspost/compress":            {"agent/internal/store", "signer/internal/pack"},
	"github.com/invopop/jsonschema":            {"schema/gen"},
	"github.com/santhosh-tekuri/jsonschema/v6": {},
}

func TestLibrariesHaveOneSpeaker(t *testing.T) {
	for name, imports := range packages(t) {
		if strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "examples/") {
			continue
		}
		for _, i := range imports {
			for library, speakers := range libraries {
				if strings.HasPrefix(i, library) && !slices.Contains(speakers, name) {
					t.Errorf("%s imports %s: only %v may", name, i, speakers)
				}
			}
		}
	}
}
