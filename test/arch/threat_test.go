package arch

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testFunc  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z]\w*)\(`)
	testNamed = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*\b`)
	fileNamed = regexp.MustCompile("`((?:schema|agent|signer|internal|test|docs|scripts)/[^`]*\\.(?:go|md|txtar))`")
)

// testsOfTree maps each test of the tree to the files that have one of that name.
func testsOfTree(t *testing.T) map[string][]string {
	t.Helper()
	tests := map[string][]string{}
	err := fs.WalkDir(os.DirFS("../.."), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		data, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			return err
		}
		for _, m := range testFunc.FindAllSubmatch(data, -1) {
			tests[string(m[1])] = append(tests[string(m[1])], path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}

// A claim of the threat model that points at a test points at one that exists, and at a file that has it.
func TestThreatModelPointsAtRealTests(t *testing.T) {
	data, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := testsOfTree(t)
	named := map[string]bool{}
	for _, name := range testNamed.FindAllString(string(data), -1) {
		named[name] = true
		if len(tests[name]) == 0 {
			t.Errorf("docs/threat-model.md names %s, which doesn't exist", name)
		}
	}
	if len(named) < 60 {
		t.Errorf("only %d tests are named: is this still the threat model?", len(named))
	}
	for _, m := range fileNamed.FindAllStringSubmatch(string(data), -1) {
		if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
			t.Errorf("docs/threat-model.md: %v", err)
		}
	}
	checkPlaces(t, string(data), tests, slices.Sorted(maps.Keys(named)))
}

var place = regexp.MustCompile("(?m)^- `([^`]+)`: (.*)$")

// checkPlaces holds the document's index of files to the tree: each named test stands there once for
// each file, and in that file.
func checkPlaces(t *testing.T, doc string, tests map[string][]string, named []string) {
	t.Helper()
	_, index, ok := strings.Cut(doc, "\n## Where the tests are\n")
	if !ok {
		t.Fatal("docs/threat-model.md has no section \"Where the tests are\"")
	}
	listed := map[string]bool{}
	for _, m := range place.FindAllStringSubmatch(index, -1) {
		for _, name := range testNamed.FindAllString(m[2], -1) {
			listed[name] = true
			if !slices.Contains(tests[name], m[1]) {
				t.Errorf("docs/threat-model.md says that %s is in %s; it is in %v", name, m[1], tests[name])
			}
		}
	}
	for _, name := range named {
		if !listed[name] {
			t.Errorf("docs/threat-model.md doesn't tell where %s is: %v", name, tests[name])
		}
	}
}

// go-tuf's updater has a disk, a network and a clock of its own (docs/adr/trust-verification.md).
func TestVerificationHasNoUpdater(t *testing.T) {
	for name, imports := range packages(t) {
		for _, i := range imports {
			for _, bad := range []string{"updater", "fetcher", "config", "multirepo"} {
				if strings.HasPrefix(i, "github.com/theupdateframework/go-tuf/v2/metadata/"+bad) {
					t.Errorf("%s imports %s: verification takes bytes and gives values", name, i)
				}
			}
		}
	}
}

// v1.11 and later of sigstore need a newer Go than the project's.
func TestSigstoreIsPinned(t *testing.T) {
	data, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`\n\tgithub\.com/sigstore/sigstore v1\.10\.\d+\n`).Match(data) {
		t.Error("go.mod: sigstore is not at v1.10.x")
	}
}
