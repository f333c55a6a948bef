package v1_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/gpuaas/node-agent/schema/v1"
)

var update = flag.Bool("update", false, "write the golden files")

// decodeFile decodes a file of testdata as what its name says.
func decodeFile(t *testing.T, path string) error {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(path)
	word, _, _ := strings.Cut(strings.TrimSuffix(name, filepath.Ext(name)), "-")
	switch word {
	case "fleet", "version", "kind":
		_, err = v1.DecodeFleet(name, data)
	case "package":
		_, err = v1.DecodePackage(name, data)
	case "profile":
		_, err = v1.DecodeProfile(name, data)
	case "node":
		_, err = v1.DecodeNode(name, data)
	case "manifest":
		_, err = v1.DecodeManifest(name, data)
	case "status":
		_, err = v1.DecodeStatus(name, data)
	default:
		t.Fatalf("no kind for %s", name)
	}
	return err
}

func testdata(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

func TestValidDocuments(t *testing.T) {
	for _, path := range testdata(t, "valid/*") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			if err := decodeFile(t, path); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInvalidDocuments compares all that people read about a file with its golden.
func TestInvalidDocuments(t *testing.T) {
	for _, path := range testdata(t, "invalid/*.yaml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			err := decodeFile(t, path)
			if err == nil {
				t.Fatal("no error")
			}
			golden(t, strings.TrimSuffix(path, ".yaml")+".golden", err.Error()+"\n")
		})
	}
}

// TestClosedSets: what is in the sets is seen at one glance, and a change to them in review.
func TestClosedSets(t *testing.T) {
	var b strings.Builder
	list := func(title string, members []string) {
		b.WriteString(title + "\n")
		for _, m := range members {
			b.WriteString("  " + m + "\n")
		}
	}
	list("Kinds", v1.Kinds())
	list("Phases", v1.Phases())
	list("ConditionTypes", text(v1.ConditionTypes()))
	list("ConditionStatuses", text(v1.ConditionStatuses()))
	list("ElementStates", text(v1.ElementStates()))
	list("Reasons", text(v1.Reasons()))
	golden(t, "testdata/sets.golden", b.String())
}

func text[T ~string](list []T) []string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// TestReasonsAreComplete: each Reason constant of the source is in Reasons, once.
func TestReasonsAreComplete(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]int{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Reason" {
			declared[strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`)]++
		}
		return true
	})
	listed := text(v1.Reasons())
	for name, n := range declared {
		if n != 1 || !slices.Contains(listed, name) {
			t.Errorf("reason %s: declared %d times, listed: %v", name, n, slices.Contains(listed, name))
		}
	}
	if len(listed) != len(declared) {
		t.Errorf("%d reasons are listed, %d declared", len(listed), len(declared))
	}
}
