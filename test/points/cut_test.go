//go:build points

package points

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEachPointHasATestThatFailsWithoutIt(t *testing.T) {
	for _, c := range cuts {
		t.Run("point "+c.point+", "+c.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("go", "test", "-vet=off", "-count=1", "-run", "^"+c.test+"$", c.pkg)
			cmd.Dir = root
			cmd.Env = append(os.Environ(), "GOFLAGS=-overlay="+overlay(t, c))
			out, err := cmd.CombinedOutput()
			switch text := string(out); {
			case err == nil:
				t.Errorf("%s passes without the point", c.test)
			case !strings.Contains(text, "--- FAIL: "+c.test):
				t.Errorf("%s didn't run:\n%s", c.test, text)
			}
		})
	}
}

// overlay is what go's -overlay takes: the cut file in place of the real one.
func overlay(t *testing.T, c cut) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(root, c.file))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(c.swaps); i += 2 {
		if strings.Count(text, c.swaps[i]) != 1 {
			t.Fatalf("%s doesn't say %q once any more: cut the point anew", c.file, c.swaps[i])
		}
		text = strings.Replace(text, c.swaps[i], c.swaps[i+1], 1)
	}
	dir := t.TempDir()
	without := filepath.Join(dir, "without.go")
	index, err := json.Marshal(map[string]any{"Replace": map[string]string{path: without}})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	for file, content := range map[string][]byte{without: []byte(text), list: index} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
