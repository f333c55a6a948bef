package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// at runs a command line at a time, and returns its exit code and standard error.
func at(now time.Time, args ...string) (code int, stderr string) {
	var out, err bytes.Buffer
	env := map[string]string{"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.com"}
	o := &options{
		stdin: strings.NewReader(""), stdout: &out, stderr: &err,
		env: func(name string) string { return env[name] }, now: func() time.Time { return now },
	}
	root := newRoot(o)
	root.SetArgs(args)
	code = o.finish(root.ExecuteC())
	return code, err.String()
}

// TestFreshness: metadata is signed again before it expires and not sooner, and
// what has expired is stale.
func TestFreshness(t *testing.T) {
	dir := t.TempDir()
	fleet, keys := filepath.Join(dir, "fleet"), filepath.Join(dir, "keys")
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	if code, stderr := at(begin, "init", fleet, "--keys", keys, "--no-passphrase"); code != 0 {
		t.Fatal(stderr)
	}
	// Only the package of the template stands in the way of signing.
	pin := filepath.Join(fleet, "packages", "node-exporter.yaml")
	data, err := os.ReadFile(pin)
	if err != nil {
		t.Fatal(err)
	}
	if code, stderr := at(begin, "-C", fleet, "sign", "--keys", keys, "--offline"); code != 1 || !strings.Contains(stderr, "not pinned") {
		t.Fatal(code, stderr)
	}
	commitPinned(t, fleet, bytes.ReplaceAll(data, []byte(strings.Repeat("0", 64)), []byte(strings.Repeat("1", 64))))
	for _, step := range []struct {
		name  string
		after time.Duration
		args  []string
		code  int
		want  string
	}{
		{"first", 0, []string{"sign", "--keys", keys, "--offline"}, 0, "signed 3 changed manifests"},
		{"good for long", day, []string{"sign", "--keys", keys, "--offline"}, 0, "nothing to sign"},
		{"half of the timestamp's life is over", 2 * day, []string{"sign", "--keys", keys, "--offline"}, 0, "signed 0 changed manifests"},
		{"just done", 2*day + time.Hour, []string{"sign", "--keys", keys, "--offline"}, 0, "nothing to sign"},
		{"fresh", 4 * day, []string{"inspect"}, 0, ""},
		{"expired is stale", 6 * day, []string{"inspect"}, 4, "nodes would refuse this state: Expired"},
		{"signing again mends it", 100 * day, []string{"sign", "--keys", keys, "--offline"}, 0, "signed 0 changed manifests"},
		{"mended", 100 * day, []string{"inspect"}, 0, ""},
	} {
		code, stderr := at(begin.Add(step.after), append([]string{"-C", fleet}, step.args...)...)
		if code != step.code || !strings.Contains(stderr, step.want) {
			t.Errorf("%s: exit code %d, want %d, and %q in\n%s", step.name, code, step.code, step.want, stderr)
		}
	}
}

// TestRefresh: what is due is signed again with the keys at hand, whatever main holds.
func TestRefresh(t *testing.T) {
	dir := t.TempDir()
	fleet, all, few := filepath.Join(dir, "fleet"), filepath.Join(dir, "keys"), filepath.Join(dir, "few")
	begin := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	if code, stderr := at(begin, "init", fleet, "--keys", all, "--no-passphrase"); code != 0 {
		t.Fatal(stderr)
	}
	if err := os.Mkdir(few, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"snapshot.key", "timestamp.key"} {
		if err := os.Link(filepath.Join(all, name), filepath.Join(few, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name  string
		after time.Duration
		keys  string
		dry   bool
		code  int
		want  string
	}{
		{"fresh", day, few, false, 0, "nothing is due"},
		{"fresh, dry", day, few, true, 0, ""},
		{"the timestamp, dry", 2 * day, few, true, 5, ""},
		{"the timestamp", 2 * day, few, false, 0, "refreshed timestamp: "},
		{"not twice", 2 * day, few, false, 0, "nothing is due"},
		{"a team without its key", 46 * day, few, false, 0, "warning: fleet expires 2026-05-30"},
		{"a team without its key, alone", 46 * day, few, false, 0, "warning: fleet expires"},
		{"an expired team can't be mended with these keys, dry", 91 * day, few, true, 4, "fleet has expired"},
		{"an expired team can't be mended with these keys", 91 * day, few, false, 4, "refused to commit what nodes would refuse"},
		{"but with its own", 91 * day, all, false, 0, "refreshed fleet, timestamp: "},
		{"root and targets, with few keys", 200 * day, few, true, 4, "warning: root expires 2027-03-01"},
		{"root and targets, with all", 200 * day, all, false, 0, "refreshed root, targets, fleet, snapshot, timestamp: "},
		{"done", 200 * day, all, false, 0, "nothing is due"},
	} {
		args := []string{"-C", fleet, "refresh", "--offline", "--keys", step.keys}
		if step.dry {
			args = append(args, "--dry-run")
		}
		code, stderr := at(begin.Add(step.after), args...)
		if code != step.code || !strings.Contains(stderr, step.want) {
			t.Errorf("%s: exit code %d, want %d, and %q in\n%s", step.name, code, step.code, step.want, stderr)
		}
	}
	if code, stderr := at(begin.Add(200*day), "-C", fleet, "inspect"); code != 0 {
		t.Errorf("nodes would refuse it: %s", stderr)
	}
}

// commitPinned commits a pinned package.
func commitPinned(t *testing.T, fleet string, pin []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(fleet, "packages", "node-exporter.yaml"), pin, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qam", "Pin")
	cmd.Dir = fleet
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v (install git to run this test): %v\n%s", cmd, err, out)
	}
}

func TestColour(t *testing.T) {
	c := change{node: "n", target: "nodes/fleet/00/n.yaml", before: []byte("a\nb\n"), after: []byte("a\nc\n")}
	var plain, coloured bytes.Buffer
	if err := c.print(&plain, false); err != nil {
		t.Fatal(err)
	}
	if err := c.print(&coloured, true); err != nil {
		t.Fatal(err)
	}
	want := "diff --git a/nodes/fleet/00/n.yaml b/nodes/fleet/00/n.yaml\n--- a/nodes/fleet/00/n.yaml\n+++ b/nodes/fleet/00/n.yaml\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
	if plain.String() != want {
		t.Errorf("got\n%s\nwant\n%s", plain.String(), want)
	}
	stripped := coloured.String()
	for _, code := range []string{bold, red, green, cyan, reset} {
		if !strings.Contains(stripped, code) {
			t.Errorf("%q is missing", code)
		}
		stripped = strings.ReplaceAll(stripped, code, "")
	}
	if stripped != want {
		t.Errorf("colours change the text: %q", coloured.String())
	}
	for name, o := range map[string]*options{
		"not a terminal": {stdout: &plain, env: func(string) string { return "" }},
		"NO_COLOR":       {stdout: os.Stdout, env: func(string) string { return "1" }},
	} {
		if o.colour() {
			t.Errorf("%s: coloured", name)
		}
	}
}
