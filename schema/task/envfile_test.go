package task_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gpuaas/node-agent/schema/task"
	"github.com/gpuaas/node-agent/test/harness"
)

// hardEnv holds the values that have broken writers of environment files.
var hardEnv = task.Env{
	"PLAIN":        "127.0.0.1:9100",
	"EMPTY":        "",
	"SPACES":       "  lead and trail  ",
	"TABS":         "\tlead\t",
	"SINGLE":       `it's`,
	"DOUBLE":       `say "hi"`,
	"BACKSLASH":    `C:\new\table\`,
	"BACKSLASHES":  `\\\"\\`,
	"DOLLAR":       `$HOME ${HOME} $$ \$`,
	"BACKTICK":     "`id` \\`",
	"NEWLINES":     "one\ntwo\n\nthree\n",
	"CRLF":         "one\r\ntwo\r",
	"CONTINUATION": "one\\\ntwo",
	"HASH":         "# no comment",
	"SEMICOLON":    "; none",
	"EQUALS":       "a=b=c",
	"PERCENT":      "%n %h %%",
	"BANG":         "a!b!!",
	"GLOB":         "*?[a-z]{1,2}~",
	"UTF8":         "größer 漢字 \U0001f600",
	"CONTROL":      "\x01\x07\x1b[0m\x7f",
	"SEPARATORS":   "\u0085\u2028\u2029\ufeff",
	"QUOTED":       `"already"`,
	"QUOTED1":      `'already'`,
	"LONG":         strings.Repeat(`x"\$ `, 2000),
	"_under_1":     "x",
}

func TestRenderEnv(t *testing.T) {
	got := string(task.Env{"B": "two words", "A": "plain", "C": `a"b\c$d` + "`"}.Render("my-task"))
	want := "# Written by gpuaas-node-agent (task my-task). Changes are overwritten.\n" +
		"A=plain\nB=\"two words\"\nC=\"a\\\"b\\\\c\\$d\\`\"\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestRenderedEnvIsReadBack(t *testing.T) {
	if got := parseEnvFile(string(hardEnv.Render("t"))); !maps.Equal(got, hardEnv) {
		for name, want := range hardEnv {
			if got[name] != want {
				t.Errorf("%s = %q, want %q", name, got[name], want)
			}
		}
	}
}

func FuzzRenderEnv(f *testing.F) {
	for _, value := range hardEnv {
		f.Add(value, "b")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		want := task.Env{"A": strings.ReplaceAll(a, "\x00", ""), "B": strings.ReplaceAll(b, "\x00", "")}
		if got := parseEnvFile(string(want.Render("t"))); !maps.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestSystemdReadsRenderedEnv lets a real manager read the file and start a
// process with it.
func TestSystemdReadsRenderedEnv(t *testing.T) {
	m := harness.NewManager(t)
	dir := t.TempDir()
	envFile, out := filepath.Join(dir, "hard.env"), filepath.Join(dir, "out")
	if err := os.WriteFile(envFile, hardEnv.Render("t"), 0o600); err != nil {
		t.Fatal(err)
	}
	unit := "[Service]\nType=oneshot\nEnvironmentFile=" + envFile + "\nExecStart=/usr/bin/env -0\nStandardOutput=file:" + out + "\n"
	if err := os.MkdirAll(m.UnitDir(), 0o755); err != nil {
		t.Fatal(err)
	}
	const name = "gpuaas-test-env.service"
	path := filepath.Join(m.UnitDir(), name)
	if err := os.WriteFile(path, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	for _, args := range [][]string{{"daemon-reload"}, {"start", name}} {
		if text, err := m.Systemctl(args...); err != nil {
			t.Fatalf("systemctl %s: %v: %s", args, err, text)
		}
	}
	var data []byte
	for deadline := time.Now().Add(30 * time.Second); len(data) == 0 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		data, _ = os.ReadFile(out)
	}
	got := map[string]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		got[key] = value
	}
	for key, want := range hardEnv {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("%s = %.80q (there: %v), want %.80q", key, value, ok, want)
		}
	}
}

// parseEnvFile reads an environment file by the rules of systemd.exec(5): comments,
// unquoted values whose backslashes stand for the next character, quoted parts, and
// lines that go on after a backslash.
func parseEnvFile(text string) task.Env {
	env := task.Env{}
	r := strings.NewReader(text)
	for r.Len() > 0 {
		if name, value, ok := parseAssignment(r); ok {
			env[name] = value
		}
	}
	return env
}

func parseAssignment(r *strings.Reader) (name, value string, ok bool) {
	line, found := readUntil(r, "=\n\r")
	line = strings.TrimLeft(line, " \t")
	if found != '=' || strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
		if found == '=' {
			readUntil(r, "\n\r")
		}
		return "", "", false
	}
	return strings.TrimRight(line, " \t"), parseValue(r), true
}

// readUntil returns what comes before one of the stop bytes, and that byte.
func readUntil(r *strings.Reader, stop string) (string, byte) {
	var b strings.Builder
	for {
		c, err := r.ReadByte()
		if err != nil {
			return b.String(), 0
		}
		if strings.IndexByte(stop, c) >= 0 {
			return b.String(), c
		}
		b.WriteByte(c)
	}
}

func parseValue(r *strings.Reader) string {
	var value []byte
	start := true // nothing but quoted parts and white space so far
	for {
		c, err := r.ReadByte()
		switch {
		case err != nil || c == '\n' || c == '\r':
			if start {
				return string(value)
			}
			return strings.TrimRight(string(value), " \t")
		case start && (c == ' ' || c == '\t'):
		case start && c == '\'':
			part, _ := readUntil(r, "'")
			value = append(value, part...)
		case start && c == '"':
			value = append(value, parseDoubleQuoted(r)...)
		case c == '\\':
			start = false
			if next, err := r.ReadByte(); err == nil && next != '\n' && next != '\r' {
				value = append(value, next)
			}
		default:
			start = false
			value = append(value, c)
		}
	}
}

func parseDoubleQuoted(r *strings.Reader) []byte {
	var value []byte
	for {
		c, err := r.ReadByte()
		if err != nil || c == '"' {
			return value
		}
		if c != '\\' {
			value = append(value, c)
			continue
		}
		next, err := r.ReadByte()
		switch {
		case err != nil || next == '\n':
		case strings.IndexByte("\"\\`$", next) >= 0:
			value = append(value, next)
		default:
			value = append(value, '\\', next)
		}
	}
}
