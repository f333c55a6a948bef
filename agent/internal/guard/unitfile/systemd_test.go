package unitfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gpuaas/node-agent/agent/internal/guard/unitfile"
	"github.com/gpuaas/node-agent/test/harness"
)

// What this package accepts, a real systemd reads the same: its own commands and
// variables are compared with ours.
func TestSystemdReadsTheSame(t *testing.T) {
	m := harness.NewManager(t)
	bodies := []string{
		"ExecStart=/bin/a b  c",
		"  ExecStart \t=   /bin/a  \t b  ",
		"ExecStart=/bin/a \\\n# comment \\\n   b \\\n; comment\n\tc",
		"ExecStart=\\\n/bin/a",
		"ExecStart=/bin/a \\\n\nEnvironment=X=1",
		"Environment=X=1\\\\\nExecStart=/bin/a",
		"Environment=X=1\\\\\\\nY=2\nExecStart=/bin/a",
		"ExecStart=/bin/a 'b \"c\"' \"d 'e'\" f\"g h\"i",
		`ExecStart=/bin/a "" \x41\101\u0041\U00000041 "\x42" '\x43' a\sb`,
		"ExecStart=/bin/a ; /bin/b ; -/bin/c d",
		`ExecStart=/bin/a ";" \; ;b b; c`,
		"ExecStart=; ; /bin/a ;",
		`ExecStart="-/bin/a" b`,
		`ExecStart=/bin/"a"b'c'`,
		`ExecStart=\x2fbin/\141`,
		"ExecStart=-@:/bin/a zero one",
		"ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b",
		"ExecStart=/bin/a\n[Unit]\nDescription=x\n[Service]\nExecStart=/bin/b",
		"ExecSt\\\nart=/bin/a\nExecStart=/bin/b",
		"# ExecStart=/bin/a \\\nExecStart=/bin/b",
		`ExecStart=/bin/a ${X} $Y "$Z"`,
		`Environment="A=b c" D='e f' G=h\x41` + "\nExecStart=/bin/a",
		"ExecStart=/bin/\u00e4 \u65e5\u672c",
		"ExecStart=/bin/a # no comment",
	}
	for i, body := range bodies {
		name := "gpuaas-" + string(rune('a'+i)) + ".service"
		text := "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n" + body + "\n"
		if err := os.WriteFile(filepath.Join(m.UnitDir(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		want, environment := readBySystemd(t, m, name)
		f, err := unitfile.Parse([]byte(text))
		if err != nil {
			t.Errorf("%q: %v, but systemd reads %q", body, err, want)
			continue
		}
		got, env := readByUs(t, f)
		if got != want {
			t.Errorf("%q: commands are\n%s\nsystemd reads\n%s", body, got, want)
		}
		if env != environment {
			t.Errorf("%q: variables are %s, systemd reads %s", body, env, environment)
		}
	}
}

// readBySystemd returns "path argv" of every ExecStart command, one a line, and
// the variables as systemctl shows them.
func readBySystemd(t *testing.T, m *harness.Manager, name string) (commands, environment string) {
	t.Helper()
	out, err := m.Systemctl("show", name, "--property=ExecStart", "--property=Environment")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.SplitSeq(out, "\n") {
		if value, ok := strings.CutPrefix(line, "Environment="); ok {
			environment = value
		}
		value, ok := strings.CutPrefix(line, "ExecStart={ path=")
		if !ok {
			continue
		}
		path, rest, _ := strings.Cut(value, " ; argv[]=")
		argv, _, _ := strings.Cut(rest, " ; ignore_errors=")
		lines = append(lines, path+" "+argv)
	}
	return strings.Join(lines, "\n"), environment
}

func readByUs(t *testing.T, f unitfile.File) (commands, environment string) {
	t.Helper()
	var lines, variables []string
	for _, a := range f.Assignments {
		switch a.Key {
		case "ExecStart":
			parsed, err := unitfile.ParseExec(a.Value)
			if err != nil {
				t.Errorf("%q: %v", a.Value, err)
			}
			if a.Value == "" {
				lines = nil
			}
			for _, c := range parsed {
				argv := append([]string{c.Path}, c.Args...)
				if strings.Contains(c.Prefixes, "@") {
					argv = c.Args
				}
				lines = append(lines, c.Path+" "+strings.Join(argv, " "))
			}
		case "Environment":
			words, err := unitfile.Words(a.Value)
			if err != nil {
				t.Errorf("%q: %v", a.Value, err)
			}
			for _, w := range words {
				if strings.ContainsAny(w, ` \`) {
					w = `"` + strings.ReplaceAll(w, `\`, `\\`) + `"`
				}
				variables = append(variables, w)
			}
		}
	}
	return strings.Join(lines, "\n"), strings.Join(variables, " ")
}
